"""Linear head and cross-entropy in one: all the logits never exist together."""

from typing import Any

from torch import Tensor, is_grad_enabled
from torch.library import custom_op

from model.ops._common import Backend, check_shape, chosen, compute_dtype
from model.ops.cross_entropy import reference
from model.ops.cross_entropy.torch import IGNORED, forward

__all__ = ["IGNORED", "linear_cross_entropy"]


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Mean cross-entropy, in nats, of softmax(hidden weight^T) over the targets that count.

    Args:
        hidden: (rows, d_model).
        weight: (vocab, d_model), in hidden's dtype.
        targets: (rows,) int64 token ids; -100 is ignored. They are not shifted here.
        backend: "torch", "reference" or "auto".

    Returns:
        Scalar in fp32 (fp64 for fp64 hidden); 0 with zero gradients if no target counts.

    Raises:
        ValueError: shapes that do not fit together, or an unknown backend.
    """
    if hidden.dim() != 2 or weight.dim() != 2:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} must be (rows, d_model), weight {tuple(weight.shape)} (vocab, d_model)"
        )
    check_shape("weight", weight, (weight.shape[0], hidden.shape[1]))
    check_shape("targets", targets, (hidden.shape[0],))
    if chosen(backend) == "reference":
        return reference.linear_cross_entropy(hidden, weight, targets).to(compute_dtype(hidden))
    with_gradients = is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    total = _linear_cross_entropy(hidden, weight, targets, with_gradients)[0]
    return total / (targets != IGNORED).sum().clamp(min=1)


@custom_op("mamba2::linear_cross_entropy", mutates_args=())
def _linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return forward(hidden, weight, targets, with_gradients)


@_linear_cross_entropy.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(hidden)
    loss = hidden.new_empty((), dtype=dtype)
    if not with_gradients:
        return loss, hidden.new_empty(0), hidden.new_empty(0, dtype=dtype)
    return loss, hidden.new_empty(hidden.shape), weight.new_empty(weight.shape, dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    ctx.weight_dtype = inputs[1].dtype


def _gradients(
    ctx: Any, grad_loss: Tensor | None, _hidden: Tensor | None, _weight: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_loss is None:
        return None, None, None, None
    d_hidden, d_weight = ctx.saved_tensors
    d_hidden = (d_hidden * grad_loss).to(d_hidden.dtype)
    return d_hidden, (d_weight * grad_loss).to(ctx.weight_dtype), None, None


_linear_cross_entropy.register_autograd(_gradients, setup_context=_save)
