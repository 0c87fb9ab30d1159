"""The hybrid language model: embedding, blocks by pattern, norm, head."""

import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import HybridConfig
from model.layers.attention import Attention
from model.layers.mamba2 import Mamba2
from model.layers.mlp import MLP
from model.layers.norm import RMSNorm
from model.ops._common import compute_dtype, number_documents
from model.ops.cross_entropy import IGNORED, linear_cross_entropy
from model.state import AttentionState, DecodeState, LayerState, MambaState

_MIXERS = {"M": Mamba2, "*": Attention, "-": MLP}
_RESIDUAL_OUTPUTS = ("out_proj", "o_proj", "down_proj")


class Block(nn.Module):
    """Pre-norm residual block around one mixer."""

    def __init__(self, symbol: str, config: HybridConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer: nn.Module = _MIXERS[symbol](config)
        self.residual_multiplier = config.residual_multiplier

    def forward(
        self, residual: Tensor, mixed: Tensor | None = None, seq_idx: Tensor | None = None, state: LayerState = None
    ) -> tuple[Tensor, Tensor, LayerState]:
        """Run the layer, but leave it to the next norm, which reads the residual stream anyway, to add its output.

        Args:
            residual: (batch, seqlen, d_model), the residual stream without what the block before made.
            mixed: (batch, seqlen, d_model), what it made; None before the first block.
            seq_idx: (batch, seqlen) document index of each position.
            state: the layer's decode state.

        Returns:
            The residual stream with `mixed`, what this block's mixer made, and the layer's state after.
        """
        residual, normed = self.norm(residual, mixed, self.residual_multiplier)
        mixed, state = self.mixer(normed, seq_idx, state)
        return residual, mixed, state


class HybridOutput:
    """What a forward pass returns.

    Attributes:
        loss: scalar mean cross-entropy in nats, None without labels.
        state: the decode state after the last position, None unless one was passed.
        hidden: (batch, seqlen, d_model) the head's input.
        logits: (batch, seqlen, vocab_size) in fp32; computed when first read. With labels by the weights as they are
            then: read them before a step of the optimizer, and in the forward's grad mode.
    """

    def __init__(self, hidden: Tensor, head_weight: Tensor, loss: Tensor | None, state: DecodeState | None) -> None:
        self.hidden = hidden
        self.loss = loss
        self.state = state
        self._head_weight = head_weight

    @cached_property
    def logits(self) -> Tensor:
        """(batch, seqlen, vocab_size)."""
        return self._logits(self.hidden)

    def last_logits(self) -> Tensor:
        """(batch, vocab_size) of the last position only."""
        return self._logits(self.hidden[:, -1])

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = F.linear(hidden, self._head_weight.to(hidden.dtype))
        return logits.to(compute_dtype(logits))


class HybridLM(nn.Module):
    """A language model of Mamba2, attention and MLP layers.

    Parameters (`config.layers` gives layer i its kind): `embedding.weight`, `layers.i.norm.weight`,
    `layers.i.mixer.*`, `norm.weight` and, unless tied, `head.weight`.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(symbol, config) for symbol in config.layers)
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise every parameter from torch's global generator.

        Matrices are normal with `initializer_range`; those that write to the residual stream are scaled by
        1 / sqrt(number of blocks) (Radford et al. 2019), biases are zero, the rest is its module's business.
        """
        std = self.config.initializer_range
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes_residual = name.rpartition(".")[2] in _RESIDUAL_OUTPUTS
                scale = math.sqrt(self.config.n_layers) if writes_residual else 1.0
                nn.init.normal_(module.weight, std=std / scale)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif module is not self and hasattr(module, "reset_parameters"):
                module.reset_parameters()

    @property
    def head_weight(self) -> Tensor:
        """(vocab_size, d_model); the embedding's weight if tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def decay_parameters(self) -> set[str]:
        """Names of the parameters that weight decay applies to: all matrices, embeddings and head included.

        Norms, biases, convolution taps, A_log, D and dt_bias are left out.
        """
        return {
            f"{name}.weight" for name, module in self.named_modules() if isinstance(module, nn.Linear | nn.Embedding)
        }

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids of any shape -> the residual stream, (..., d_model)."""
        residual = self.embedding(input_ids)
        if self.config.embedding_multiplier != 1.0:
            residual = residual * self.config.embedding_multiplier
        return residual.to(compute_dtype(residual)) if self.config.residual_in_fp32 else residual

    def scale_for_head(self, hidden: Tensor) -> Tensor:
        """The head's input, from the final norm's output: dividing it divides the logits."""
        scaling = self.config.logits_scaling
        return hidden if scaling == 1.0 else hidden / scaling

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        seq_idx: Tensor | None = None,
        state: DecodeState | None = None,
    ) -> HybridOutput:
        """Run the model over a batch of rows.

        Args:
            input_ids: (batch, seqlen) int64.
            labels: (batch, seqlen) int64, the input_ids not shifted, -100 where a token is no target. The
                model shifts: position t predicts labels[t + 1], never across a document boundary.
            seq_idx: (batch, seqlen) int32 document index of each position; where it changes a new document
                starts, and nothing of the earlier ones reaches it.
            state: continue from this decode state, which the call takes over; see `DecodeState`.

        Returns:
            `HybridOutput` with `.logits`, `.loss` and `.state`.

        Raises:
            ValueError: shapes that do not fit together, or a state together with seq_idx.
        """
        if input_ids.dim() != 2 or input_ids.shape[1] == 0:
            raise ValueError(f"input_ids is {tuple(input_ids.shape)}: it must be (batch, seqlen), seqlen at least 1")
        for name, tensor in (("labels", labels), ("seq_idx", seq_idx)):
            if tensor is not None and tensor.shape != input_ids.shape:
                raise ValueError(f"{name} is {tuple(tensor.shape)} and input_ids {tuple(input_ids.shape)}: align them")
        if seq_idx is not None:
            if state is not None:
                raise ValueError("a decode state holds one document per row: pass seq_idx or state, not both")
            seq_idx = number_documents(seq_idx)

        residual, mixed = self.embed(input_ids), None
        states = (None,) * len(self.layers) if state is None else state.layers
        after: list[LayerState] = []
        for block, layer_state in zip(self.layers, states, strict=True):
            residual, mixed, layer_state = block(residual, mixed, seq_idx, layer_state)
            after.append(layer_state)
        _, normed = self.norm(residual, mixed, self.config.residual_multiplier)
        hidden = self.scale_for_head(normed)
        loss = None if labels is None else self.loss(hidden, labels, seq_idx)
        if state is not None:
            state = DecodeState(tuple(after), torch.cat([state.ids, input_ids], dim=1))
        # In training nobody reads the logits: no copy of the head in an autocast's precision is made for them
        head_weight = self.head_weight if labels is not None else self.head_weight.to(hidden.dtype)
        return HybridOutput(hidden, head_weight, loss, state)

    def loss(self, hidden: Tensor, labels: Tensor, seq_idx: Tensor | None) -> Tensor:
        """The mean cross-entropy of the head on its input (batch, seqlen, d_model); arguments as in `forward`."""
        targets = _next_tokens(labels, seq_idx)
        return linear_cross_entropy(hidden.flatten(0, 1), self.head_weight, targets.flatten())

    def new_state(self, batch_size: int) -> DecodeState:
        """The state before the first token of `batch_size` rows, on the model's device."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        ids = torch.empty(batch_size, 0, dtype=torch.int64, device=self.embedding.weight.device)
        return DecodeState(tuple(self._new_layer_state(symbol, batch_size) for symbol in self.config.layers), ids)

    def _new_layer_state(self, symbol: str, batch_size: int) -> LayerState:
        if symbol == "M":
            return self._new_mamba_state(batch_size)
        return self._new_attention_state(batch_size) if symbol == "*" else None

    def _new_mamba_state(self, batch_size: int) -> MambaState:
        config, weight = self.config, self.embedding.weight
        conv = (batch_size, config.d_conv - 1, config.d_inner + 2 * config.n_groups * config.d_state)
        ssm = (batch_size, config.nheads, config.headdim, config.d_state)
        return MambaState(weight.new_zeros(conv), weight.new_zeros(ssm, dtype=compute_dtype(weight)))

    def _new_attention_state(self, batch_size: int) -> AttentionState:
        shape = (2, batch_size, self.config.n_kv_heads, 0, self.config.attention_head_dim)
        return AttentionState(self.embedding.weight.new_empty(shape))


def _next_tokens(labels: Tensor, seq_idx: Tensor | None) -> Tensor:
    """(batch, seqlen) target of each position: the next label of the same document, else ignored."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    if seq_idx is not None:
        last = F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (0, 1), value=True)
        targets = targets.masked_fill(last, IGNORED)
    return targets
