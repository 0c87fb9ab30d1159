"""Training operators: torch custom ops with hand-written backwards, each beside its exact reference."""
