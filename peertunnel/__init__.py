"""Peer-to-peer port forwarding on libp2p."""

__version__ = "0.1.0"
