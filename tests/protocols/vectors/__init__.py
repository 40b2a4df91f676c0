"""What other implementations put on the wire."""
