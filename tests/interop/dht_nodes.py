"""Several of our DHT nodes in one process: `python -m tests.interop.dht_nodes COUNT PREFIX [BOOTSTRAP]`.

Prints a line for each, as `pt relay` would; each has a host, a key and a table of its own. Ends when it is told to.
"""

import json
import sys
from contextlib import AsyncExitStack

import trio

from tests.node.dht import peer


async def main(count: int, prefix: str, *bootstrap: str) -> None:
    """Run the nodes until cancelled."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            node = await stack.enter_async_context(peer(*bootstrap, prefix=prefix))
            print(json.dumps({"kind": "ready", "addresses": node.host.addresses}), flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), *sys.argv[2:])
