"""Answers from a model, on the terminal."""
