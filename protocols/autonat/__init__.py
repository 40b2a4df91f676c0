"""AutoNAT, sans I/O: other peers dial us back, and tell whether they could (libp2p specs, autonat).

Version 2 asks about single addresses, and who says that it reached us shows a nonce on the connection that it made.
Version 1 asks about all addresses at once, and its answers have to be believed.
"""
