"""The wire, sans I/O: bytes in, events and bytes out; no sockets, clock, randomness or logging."""
