"""Peers behind routers: a laboratory of network namespaces, and what is measured in it."""
