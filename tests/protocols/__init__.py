"""Tests of the wire cores: two machines joined by a fake wire."""
