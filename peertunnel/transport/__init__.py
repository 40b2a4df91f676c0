"""From sockets to streams: dialling, listening, security, multiplexing, and the reactor under it all."""
