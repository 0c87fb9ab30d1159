"""Operators in C on a CPU: what their Python sides share. C computes in fp32, and reads and writes fp32 and bf16."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.ops._compiler import load

SIZE, INT, FLOAT, POINTER = ctypes.c_longlong, ctypes.c_int, ctypes.c_float, ctypes.c_void_p


class Works:
    """Whether C does what it should, asked once per process; while torch.compile traces, what is known by then."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self.ask = ask
        self.answer: bool | None = None

    def __call__(self) -> bool:
        if self.answer is None and not torch.compiler.is_compiling():
            with ThreadPoolExecutor(
                1
            ) as thread:  # where none of the caller's modes is on: fake tensors, default devices
                self.answer = thread.submit(self.ask).result()
        return bool(self.answer)


def functions(name: str, module: str, arguments: Mapping[str, Sequence[Any]]) -> ctypes.CDLL | None:
    """The C functions in the folder c/ beside a module, with the types of their arguments; None without a compiler."""
    library = load(name, Path(module).with_name("c"), arguments)
    for function, types in arguments.items() if library else ():
        getattr(library, function).argtypes = types
    return library


def runs_native(tensor: Tensor) -> bool:
    """Whether C takes what lies where this tensor does."""
    taken = tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return taken and tensor.device.type == "cpu" and tensor.numel() > 0


def whole(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor, or a copy, contiguous and in a dtype."""
    return tensor.detach().resolve_neg().to(dtype).contiguous()


def in_memory(dtype: torch.dtype) -> torch.dtype:
    """In which C reads and writes a tensor of a dtype: bf16 as it is, fp16 widened before and rounded after."""
    return dtype if dtype == torch.bfloat16 else torch.float32


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """To be written by C."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def address(tensor: Tensor | None) -> int | None:
    """Of a contiguous tensor, which the caller holds; null for None."""
    return None if tensor is None else tensor.data_ptr()
