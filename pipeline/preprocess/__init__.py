"""The second stage: repair, measure, deduplicate, decontaminate, split and mix what ingest read."""
