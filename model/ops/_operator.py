"""Operators that torch.compile does not look into, as torch.library.custom_op makes them, at less of the host's time.

custom_op checks its outputs for aliases and puts several calls between a training step and its kernels: some 0.2 ms
for a forward and backward, as long as some kernels take.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.library import Library, infer_schema

NAMESPACE = "mamba2"
LIBRARY = Library(NAMESPACE, "FRAGMENT")


def operator(
    function: Callable[..., Any],
    fake: Callable[..., Any],
    save: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
    gradients: Callable[..., Any] | None = None,
) -> OpOverload:
    """torch.ops.mamba2.NAME, of a function _NAME that changes no argument and returns new tensors.

    Args:
        function: typed, as torch.library.infer_schema reads it.
        fake: empty tensors of the shapes and dtypes of its results.
        save: keeps for the backward what it needs, from a context, the inputs and the outputs.
        gradients: of each input, from the context and the gradients of the outputs, None where there is none; without
            it a backward through the operator is an error.
    """
    name = function.__name__.removeprefix("_")

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            outputs = _below(*inputs)
            if save is not None:
                save(ctx, inputs, outputs)
            return outputs

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            if gradients is None:
                raise NotImplementedError(f"{NAMESPACE}::{name} has no gradients: it may be one itself, taken once")
            return gradients(ctx, *grads)

    def _below(*inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*inputs)

    def _with_gradients(*inputs: Any) -> Any:
        return Differentiable.apply(*inputs) if torch.is_grad_enabled() else _below(*inputs)

    LIBRARY.define(name + infer_schema(function, mutates_args=()), tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    LIBRARY.impl(name, _with_gradients, "Autograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
    op: OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    return op
