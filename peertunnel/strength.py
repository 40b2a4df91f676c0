"""How hard an id is to guess, and one that is.

Whoever sees a service's topic may try ids against it, at the price of `topic.derive_root` for each: fifty bits are then out
of reach, thirty are not. The estimate is zxcvbn's, which knows words, names, dates, keys in a row and the usual
replacements. An id made of our own words is worth no more than its words.
"""

import math
import secrets

WEAK = 50.0  # bits; 2**50 guesses take a thousand years of ten thousand cores, at a tenth of a second each
WORDS = 6  # words of a new id: 66 bits
_BITS_PER_WORD = 11  # the list has 2048 words, of four letters at least that no two share (BIP 39's)
_LONGEST = 72  # characters that are looked at; zxcvbn takes ever longer for more


def new_id(words: int = WORDS) -> str:
    """Make an id of so many random words, to be said and typed; no word comes twice, so that it looks like one of ours."""
    return "-".join(secrets.SystemRandom().sample(_word_list(), words))


def bits_of_words(words: int) -> int:
    """Give the bits of an id of so many random words."""
    return words * _BITS_PER_WORD


def estimate(tunnel_id: str) -> float:
    """Estimate how many bits a guesser has to guess."""
    from zxcvbn import zxcvbn  # only where an id is judged

    if not tunnel_id:
        return 0.0
    guessed = float(zxcvbn(tunnel_id[:_LONGEST])["guesses_log10"]) / math.log10(2)
    words = tunnel_id.split("-")
    is_ours = len(words) > 1 and set(words) <= set(_word_list())
    return min(guessed, float(bits_of_words(len(words)))) if is_ours else guessed


def weakness(tunnel_id: str) -> str | None:
    """Say in one sentence why an id is too easy to guess, None if it isn't."""
    if _is_new(tunnel_id):
        return None
    bits = estimate(tunnel_id)
    if bits >= WEAK:
        return None
    return f"The id is easy to guess (about {int(bits)} bits, and {WEAK:.0f} are wanted), and who guesses it comes in."


def _is_new(tunnel_id: str) -> bool:
    """Tell whether an id looks like one of ours, so that nobody needs the 14 MiB of zxcvbn's dictionaries for it."""
    words = set(tunnel_id.split("-"))
    return len(words) >= WORDS and words <= set(_word_list())


def _word_list() -> list[str]:
    from mnemonic import Mnemonic

    words: list[str] = Mnemonic("english").wordlist
    return words
