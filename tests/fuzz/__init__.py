"""Fuzz targets for the wire cores: hostile bytes give events or RemoteProtocolError, never anything else."""
