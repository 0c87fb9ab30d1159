"""The causal convolution on a CPU in C (c/): one pass over memory in each direction."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from model.ops._native import INT, POINTER, SIZE, address, empty, functions, whole
from model.ops._selfcheck import trusted
from model.ops.causal_conv1d import selfcheck

POSITIONS, MOST_TAPS = 64, 8
"""Of a task and of a channel, in C too."""

TOLERANCE = 1e-5
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""


class _Conv(ctypes.Structure):
    _fields_ = (
        *((name, SIZE) for name in ("batch", "seqlen", "channels", "width")),
        *((name, POINTER) for name in ("x", "taps", "bias", "before", "seq_idx")),
        ("silu", INT),
    )


@cache
def _library() -> ctypes.CDLL | None:
    arguments = {"conv_forward": [POINTER, POINTER, INT], "conv_backward": [*[POINTER] * 5, INT]}
    return functions("causal-conv1d", __file__, arguments)


@torch.compiler.assume_constant_result
def works() -> bool:
    """Whether C does on a small input what torch does; asked once per process."""
    return _works()
