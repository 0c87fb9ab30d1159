"""The layers of a hybrid: each mixer maps (hidden, seq_idx, state) to (hidden, state)."""
