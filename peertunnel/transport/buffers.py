"""Buffers that all connections of a process share, each used only between two awaits.

A connection that is idle owns no buffer: what it has to keep across an await (part of a record, output that the
socket did not take) it keeps for itself.
"""

from collections.abc import Sequence

from peertunnel.protocols.noise import MAX_RECORD, sealed_size
from peertunnel.protocols.yamux import HEADER_SIZE, MAX_PAYLOAD

RECEIVE = (
    1024 * 1024
)  # bytes per read of a connection; measured: 1 MiB is 1.2 x 256 KiB, 2 MiB brings nothing
BATCH_FRAMES = 8  # full frames per write, 512 KiB; measured: 1.2 x 256 KiB, and 1 MiB brings under 3 %
_FRAME = HEADER_SIZE + MAX_PAYLOAD
_SPARE_OUTPUTS = 8  # output buffers kept for reuse


def _buffer(size: int) -> memoryview:
    return memoryview(bytearray(size))


received = _buffer(RECEIVE + 2 + MAX_RECORD)
plaintext = _buffer(RECEIVE + 2 + MAX_RECORD)
batch = _buffer(BATCH_FRAMES * _FRAME)
slots = [batch[at + HEADER_SIZE : at + _FRAME] for at in range(0, len(batch), _FRAME)]
_output_size = sealed_size(len(batch)) + 4096  # a batch, and the control frames that ride in front of it
_outputs: list[memoryview] = []


def payload_views(size: int) -> list[memoryview]:
    """Return views into `batch` that take up to `size` bytes of payload, each with room for its header in front."""
    full, rest = divmod(size, MAX_PAYLOAD)
    if full >= BATCH_FRAMES:
        return slots
    return [*slots[:full], slots[full][:rest]] if rest else slots[:full]


def fill(slots: Sequence[memoryview], views: Sequence[memoryview], start: int) -> None:
    """Fill buffers with the payload that lies in views behind the first `start` bytes; there is at least as much."""
    slot = at = 0
    for view in views:
        if start >= len(view):
            start -= len(view)
            continue
        part, start = view[start:], 0
        while part:
            taken = min(len(part), len(slots[slot]) - at)
            slots[slot][at : at + taken] = part[:taken]
            part, at = part[taken:], at + taken
            if at == len(slots[slot]):
                slot, at = slot + 1, 0
                if slot == len(slots):
                    return


def take_output(size: int) -> memoryview:
    """Return a buffer of at least `size` bytes that belongs to the caller until `give_output`."""
    if size > _output_size:
        return _buffer(size)
    return _outputs.pop() if _outputs else _buffer(_output_size)


def give_output(buffer: memoryview) -> None:
    """Take back a buffer of `take_output`; what else was sent, such as bytes that TLS made, is left alone."""
    is_ours = len(buffer) == _output_size and not buffer.readonly
    if is_ours and len(_outputs) < _SPARE_OUTPUTS:
        _outputs.append(buffer)
