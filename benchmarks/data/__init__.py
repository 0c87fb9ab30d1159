"""Data at scale: shards to measure on, and what the same work takes elsewhere."""
