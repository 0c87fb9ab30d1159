"""`make repro`: one run of the pipeline as a whole."""
