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


def operator(function: Callable[..., Any], fake: Callable[..., Any]) -> OpOverload:
    """torch.ops.mamba2.NAME, of a function _NAME that changes no argument and returns new tensors.

    Args:
        function: typed, as torch.library.infer_schema reads it.
        fake: empty tensors of the shapes and dtypes of its results.
    """
    name = function.__name__.removeprefix("_")
    schema = infer_schema(function, mutates_args=())
    LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def differentiate(
    op: OpOverload,
    save: Callable[[Any, tuple[Any, ...], Any], None],
    gradients: Callable[..., tuple[Tensor | None, ...]],
) -> None:
    """Give an operator its gradients, once: they have none themselves.

    Args:
        save: keeps for the backward what it needs, from a context, the inputs and the outputs.
        gradients: of each input, from the context and the gradients of the outputs, None where there is none.
    """

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                outputs = op(*inputs)
            save(ctx, inputs, outputs)
            return outputs

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return gradients(ctx, *grads)

    LIBRARY.impl(op._schema.name.partition("::")[2], Differentiable.apply, "Autograd")
