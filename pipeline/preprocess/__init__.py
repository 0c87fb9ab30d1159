"""The second stage: clean, bound, deduplicate and split what ingest read."""
