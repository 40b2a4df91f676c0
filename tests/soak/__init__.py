"""Mixed load on real processes for a long time, with kills: nothing is lost, and nothing grows."""
