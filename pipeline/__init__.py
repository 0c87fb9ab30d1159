"""The DVC pipeline around `model`: one room per stage, each run as `python -m pipeline.<stage>`."""
