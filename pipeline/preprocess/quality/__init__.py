"""What is measured of a text and why it is dropped: the presets of pipeline/rules.py.

Measuring is apart from deciding: a changed threshold needs no new measures.
"""

from pipeline.preprocess.quality.decisions import decide
from pipeline.preprocess.quality.measures import measure, rewrite, rewrites

__all__ = ["decide", "measure", "rewrite", "rewrites"]
