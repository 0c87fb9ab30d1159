"""Training operators: opaque to torch, with hand-written backwards, each beside its exact reference."""
