"""Linear head and cross-entropy in one: all the logits never exist together."""

from typing import Any

from torch import Tensor, bfloat16, dtype, empty_like, float16, float32, int64, is_grad_enabled, mul

from model.ops._common import Backend, check_shape, check_tensors, chosen, compute_dtype, runs_triton
from model.ops._native import runs_native
from model.ops._operator import operator
from model.ops.cross_entropy import native, reference, selfcheck
from model.ops.cross_entropy.torch import IGNORED, forward

__all__ = ["IGNORED", "linear_cross_entropy"]


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Mean cross-entropy, in nats, of softmax(hidden weight^T) over the targets that count.

    Args:
        hidden: (rows, d_model).
        weight: (vocab, d_model), rounded to hidden's dtype for the products; its gradient is not rounded to that.
        targets: (rows,) token ids, of any integer type; -100 is ignored. They are not shifted here.
        backend: "triton" (on a GPU, in fp32, bf16 or fp16), "native" (C, on a CPU, in fp32 or bf16), "torch",
            "reference" or "auto": the fastest that takes these inputs, or what the environment's MAMBA2_BACKEND says.

    Returns:
        Scalar in fp32 (fp64 for fp64 hidden); 0 with zero gradients if no target counts.

    Raises:
        ValueError: shapes that do not fit together, tensors on several devices, hidden of integers, targets that are
            none, or a backend that is unknown or does not take these inputs.
    """
    if hidden.dim() != 2 or weight.dim() != 2:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} must be (rows, d_model), weight {tuple(weight.shape)} (vocab, d_model)"
        )
    check_shape("weight", weight, (weight.shape[0], hidden.shape[1]))
    check_shape("targets", targets, (hidden.shape[0],))
    check_tensors(hidden=hidden, weight=weight, targets=targets)
    if targets.is_floating_point() or targets.is_complex():
        raise ValueError(f"targets are {targets.dtype}: they must be token ids, integers")
    targets = targets.to(int64)  # before any is compared with IGNORED, which a byte cannot be
    if weight.shape[0] == 0:
        raise ValueError("weight has no rows: the vocabulary must have at least one token")
    path = chosen(
        backend,
        triton=lambda: _triton_takes(hidden, weight, check=backend != "triton"),
        native=lambda: hidden.dtype != float16 and runs_native(hidden) and weight.numel() > 0 and native.works(),
    )
    if path == "reference":
        return reference.linear_cross_entropy(hidden, weight, targets).to(compute_dtype(hidden))
    with_gradients = is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    total = _LINEAR_CROSS_ENTROPY(hidden, weight, targets, with_gradients, path)[0]
    return total / (targets != IGNORED).sum().clamp(min=1)


def _triton_takes(hidden: Tensor, weight: Tensor, check: bool) -> bool:
    """Whether there is a kernel for these inputs; with `check`, one found to work."""
    known = (float32, bfloat16, float16)
    if hidden.dtype not in known or weight.dtype not in known:
        return False
    if hidden.numel() == 0 or weight.numel() == 0 or not runs_triton(hidden):
        return False
    return not check or (hidden.is_cuda and selfcheck.passes(str(hidden.device), hidden.dtype))


def _linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool, path: str
) -> tuple[Tensor, Tensor, Tensor]:
    weight = weight.to(hidden.dtype)
    if path == "triton":
        from model.ops.cross_entropy import triton  # only a machine with a GPU needs Triton

        return triton.forward(hidden, weight, targets, with_gradients)
    if path == "native":
        return native.forward(hidden, weight, targets, with_gradients)
    return forward(hidden, weight, targets, with_gradients)


def _fake_linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool, path: str
) -> tuple[Tensor, Tensor, Tensor]:
    precise = compute_dtype(hidden)
    loss = hidden.new_empty((), dtype=precise)
    if not with_gradients:
        return loss, hidden.new_empty(0), hidden.new_empty(0, dtype=precise)
    return loss, hidden.new_empty(hidden.shape), weight.new_empty(weight.shape, dtype=precise)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    ctx.weight_dtype = inputs[1].dtype


def _gradients(
    ctx: Any, grad_loss: Tensor | None, _hidden: Tensor | None, _weight: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_loss is None:
        return (None,) * 5
    return *_LINEAR_CROSS_ENTROPY_BACKWARD(grad_loss, *ctx.saved_tensors, ctx.weight_dtype), *(None,) * 3


def _linear_cross_entropy_backward(
    grad_loss: Tensor, d_hidden: Tensor, d_weight: Tensor, weight_dtype: dtype
) -> tuple[Tensor, Tensor]:
    return _scaled(d_hidden, grad_loss, d_hidden.dtype), _scaled(d_weight, grad_loss, weight_dtype)


def _fake_linear_cross_entropy_backward(
    grad_loss: Tensor, d_hidden: Tensor, d_weight: Tensor, weight_dtype: dtype
) -> tuple[Tensor, Tensor]:
    return empty_like(d_hidden), empty_like(d_weight, dtype=weight_dtype)


def _scaled(gradient: Tensor, factor: Tensor, to: dtype) -> Tensor:
    """Their product, written in another dtype at once: the head's gradient is the largest tensor of a small model.

    In the factor's precision: beside a tensor of less on a GPU it would be rounded to that first.
    """
    return mul(gradient.to(factor.dtype), factor, out=empty_like(gradient, dtype=to))


_LINEAR_CROSS_ENTROPY = operator(_linear_cross_entropy, _fake_linear_cross_entropy, _save, _gradients)
_LINEAR_CROSS_ENTROPY_BACKWARD = operator(_linear_cross_entropy_backward, _fake_linear_cross_entropy_backward)
