"""The types of the arrays that stages compute with."""

from __future__ import annotations

from typing import Any

import numpy as np

I64 = np.ndarray[Any, np.dtype[np.int64]]
U64 = np.ndarray[Any, np.dtype[np.uint64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
