"""Peer-to-peer port forwarding on libp2p."""

from peertunnel import deferred

__version__ = "0.1.0"

deferred.install()  # before anything imports libp2p
