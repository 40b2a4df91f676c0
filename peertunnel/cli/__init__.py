"""The command line: it parses, starts the node and prints events; it holds no logic of its own."""
