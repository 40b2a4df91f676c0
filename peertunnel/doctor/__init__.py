"""`pt doctor`: what this network lets through, what tunnels to expect here, and what to do about it.

1. `examination` opens nodes for the purpose, and has everything measured side by side, within one deadline.
2. `servers` calls the peers that the user has named; `nat` has them tell how they see us, and call back.
3. `facts` is what came out of it, `behaviour` how the NAT is named for that (RFC 5780).
4. `judgements` puts each fact into a sentence, with advice; `outlook` says what follows from all of them.
"""

from peertunnel.doctor.examination import doctor

__all__ = ["doctor"]
