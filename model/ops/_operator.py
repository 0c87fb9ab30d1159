"""Operators that torch.compile does not look into, as torch.library.custom_op makes them, at less of the host's time.

custom_op checks its outputs for aliases and puts several calls between a training step and its kernels: some 0.2 ms
for a forward and backward, as long as some kernels take. Torch's dispatcher, which takes every argument to C++ and
back, is left out where nobody watches it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.library import Library, infer_schema
from torch.nn import Parameter

NAMESPACE = "mamba2"
LIBRARY = Library(NAMESPACE, "FRAGMENT")


def operator(
    function: Callable[..., Any],
    fake: Callable[..., Any],
    save: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
    gradients: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Have torch.ops.mamba2.NAME, of a function _NAME that changes no argument and returns new tensors; what calls it.

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
            return function(*inputs) if _unobserved(inputs) else op(*inputs)

    def _with_gradients(*inputs: Any) -> Any:
        return Differentiable.apply(*inputs) if torch.is_grad_enabled() else _below(*inputs)

    def call(*inputs: Any) -> Any:
        return _with_gradients(*inputs) if _unobserved(inputs) else op(*inputs)

    LIBRARY.define(name + infer_schema(function, mutates_args=()), tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    LIBRARY.impl(name, _with_gradients, "Autograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
    op = getattr(getattr(torch.ops, NAMESPACE), name).default
    return call


PLAIN = {Tensor, Parameter, type(None), bool, int, float, str}
"""Types of inputs; what is derived from a tensor, as DTensors and fake ones are, may see to operators itself."""


def _unobserved(inputs: tuple[Any, ...]) -> bool:
    """Whether nobody learns of an operator's call: no compiler, tracer, transform, mode, profiler or subclass."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or profiler._is_profiler_enabled
    ) and PLAIN.issuperset(map(type, inputs))
