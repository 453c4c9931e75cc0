"""Models that generate one dimension after the other."""
