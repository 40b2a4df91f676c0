"""Kademlia as libp2p speaks it, sans I/O: messages, the routing table, lookups and provider records (specs, kad-dht)."""
