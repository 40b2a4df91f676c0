"""The yamux multiplexer, sans I/O."""
