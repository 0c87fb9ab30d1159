"""The architecture: a pattern of layers and their sizes."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, Self

Activation = Literal["gelu", "relu2", "silu-gated"]

_SYMBOLS = "M*-|"
LARGEST = 2**31
"""Of any size: what is larger is a mistake."""
MAX_LAYERS = 10_000
"""A pattern that is longer is a mistake, or an attack on the memory."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are changed to reach beyond the context of pre-training.

    Attributes:
        kind: "linear" divides every frequency by `factor` (Chen et al. 2023, arXiv 2306.15595); "llama3" only the low
            ones (Grattafiori et al. 2024, arXiv 2407.21783); "yarn" by a ramp (Peng et al. 2023, arXiv 2309.00071).
        factor: the extension.
        original_context: positions of pre-training; not used by "linear".
        low, high: "llama3": how many wavelengths fit into `original_context` at the ends of the changed range.
        beta_fast, beta_slow: "yarn": rotations over `original_context` at the ends of the ramp.
        truncate: "yarn": widen the ramp to whole channels.
        attention_factor: what cosines and sines are multiplied with; "yarn" takes 0.1 ln(factor) + 1 if None.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_context: int = 0
    low: float = 1.0
    high: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "llama3", "yarn"):
            raise ValueError(f"rope scaling {self.kind!r} is not known: choose 'linear', 'llama3' or 'yarn'")
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            fits = isinstance(value, bool) if field.name == "truncate" else type(value) in (int, float)
            if not fits and not (field.name == "attention_factor" and value is None):
                kind = "true or false" if field.name == "truncate" else "a number"
                raise ValueError(f"{field.name} of the rope scaling is {value!r}: it must be {kind}")
        if not self.factor > 0:
            raise ValueError(f"the factor of the rope scaling is {self.factor}: it must be positive")
        if self.kind != "linear" and self.original_context <= 0:
            raise ValueError(f"rope scaling {self.kind!r} needs the context of pre-training, original_context")
        if self.kind == "llama3" and not self.high > self.low:
            raise ValueError(f"rope scaling: high {self.high} must be above low {self.low}")


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """Sizes and options of a `HybridLM`.

    Attributes:
        pattern: one symbol per layer, `M` Mamba2, `*` attention, `-` MLP; `|` marks a pipeline-stage boundary
            and makes no layer.
        vocab_size: rows of the embedding and of the head.
        d_model: width of the residual stream.
        d_state: state size per channel (N).
        headdim: channels per Mamba2 head (P).
        expand: Mamba2's inner width is expand * d_model, unless n_mamba_heads says otherwise.
        n_mamba_heads: heads of the mixer, whose inner width is then n_mamba_heads * headdim.
        n_groups: groups of heads that share B and C; the gated norm normalises per group.
        d_conv: taps of the causal convolution.
        conv_bias: bias in the convolution.
        mamba_bias: bias in the Mamba2 projections.
        chunk_size: positions per chunk of the scan; a speed hint, results do not depend on it.
        dt_min, dt_max, dt_init_floor: range and floor of the step sizes at initialisation.
        dt_limit: smallest and largest step size, clamped after softplus.
        norm_before_gate: normalise before the gate instead of after it.
        norm_eps: added to the mean square in every norm.
        n_heads: query heads of attention.
        n_kv_heads: key and value heads, a divisor of n_heads.
        head_dim: channels per attention head; d_model / n_heads if None.
        rope_theta: base of the rotary embedding, no position embedding if None.
        partial_rotary_factor: share of an attention head's channels that are rotated.
        rope_scaling: a change of the rotary frequencies.
        attention_multiplier: what attention scores are multiplied with; 1 / sqrt(head_dim) if None.
        attention_bias: bias in the attention projections.
        d_ff: inner width of the MLP.
        mlp_activation: "gelu" (exact), "relu2" (squared ReLU) or "silu-gated".
        mlp_bias: bias in the MLP projections.
        tie_embeddings: the head is the embedding matrix.
        embedding_multiplier: what the embeddings are multiplied with.
        residual_multiplier: what each layer's output is multiplied with before it is added to the residual stream.
        logits_scaling: what the logits are divided by.
        residual_in_fp32: keep the residual stream in fp32 whatever the weights' dtype.
        initializer_range: standard deviation of the weights at initialisation.
        max_position_embeddings: the longest context that the checkpoint's maker states; travels along for servers,
            without effect here.
    """

    pattern: str
    vocab_size: int
    d_model: int
    d_state: int = 128
    headdim: int = 64
    expand: int = 2
    n_mamba_heads: int | None = None
    n_groups: int = 1
    d_conv: int = 4
    conv_bias: bool = True
    mamba_bias: bool = False
    chunk_size: int = 256
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    dt_limit: tuple[float, float] = (0.0, math.inf)
    norm_before_gate: bool = False
    norm_eps: float = 1e-5
    n_heads: int = 8
    n_kv_heads: int = 8
    head_dim: int | None = None
    rope_theta: float | None = None
    partial_rotary_factor: float = 1.0
    rope_scaling: RopeScaling | None = None
    attention_multiplier: float | None = None
    attention_bias: bool = False
    d_ff: int = 0
    mlp_activation: Activation = "gelu"
    mlp_bias: bool = False
    tie_embeddings: bool = True
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    residual_in_fp32: bool = True
    initializer_range: float = 0.02
    max_position_embeddings: int | None = None

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "dt_limit", tuple(self.dt_limit))
        unknown = sorted(set(self.pattern) - set(_SYMBOLS))
        if unknown:
            raise ValueError(f"pattern {self.pattern!r} has unknown symbols {unknown}: use only M, *, - and |")
        if not self.layers:
            raise ValueError(f"pattern {self.pattern!r} has no layer: give at least one of M, * and -")
        if self.n_layers > MAX_LAYERS:
            raise ValueError(f"the pattern has {self.n_layers} layers: at most {MAX_LAYERS} are taken")
        if "" in self.pattern.split("|"):
            raise ValueError(
                f"pattern {self.pattern!r} has an empty pipeline stage: put layers on both sides of each |"
            )
        self._check_positive("vocab_size", "d_model", "chunk_size", "norm_eps", "initializer_range", "logits_scaling")
        for name in ("embedding_multiplier", "residual_multiplier", "attention_multiplier"):
            if not math.isfinite(getattr(self, name) or 0.0):
                raise ValueError(f"{name} is {getattr(self, name)}: it must be a number")
        if "M" in self.layers:
            self._check_mamba()
        if "*" in self.layers:
            self._check_attention()
        if "-" in self.layers:
            self._check_positive("d_ff")
            if self.mlp_activation not in ("gelu", "relu2", "silu-gated"):
                raise ValueError(f"mlp_activation is {self.mlp_activation!r}: choose 'gelu', 'relu2' or 'silu-gated'")

    def _check_types(self) -> None:
        kinds: dict[str, type | tuple[type, ...]] = {"int": int, "str": str, "bool": bool, "float": (int, float)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            name, _, optional = str(getattr(field.type, "__name__", field.type)).partition(" | ")
            if name not in kinds or (optional and value is None):
                continue
            if not isinstance(value, kinds[name]) or (isinstance(value, bool) and name != "bool"):
                raise ValueError(f"{field.name} is {value!r}: it must be of type {name}")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) <= LARGEST:  # NaN is neither
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive, and at most {LARGEST:,}")

    def _check_mamba(self) -> None:
        self._check_positive("d_state", "headdim", "expand", "n_groups", "dt_min", "dt_max", "dt_init_floor")
        if self.n_mamba_heads is not None:
            self._check_positive("n_mamba_heads")
        elif self.d_inner % self.headdim:
            raise ValueError(
                f"headdim {self.headdim} does not divide expand * d_model = {self.d_inner}: change one of them"
            )
        if self.nheads % self.n_groups:
            raise ValueError(f"n_groups {self.n_groups} does not divide the {self.nheads} Mamba2 heads")
        if not 2 <= self.d_conv <= LARGEST:
            raise ValueError(f"d_conv is {self.d_conv}: the convolution needs at least 2 taps")
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min {self.dt_min} is above dt_max {self.dt_max}: swap them")
        if len(self.dt_limit) != 2 or not 0 <= self.dt_limit[0] <= self.dt_limit[1]:
            raise ValueError(f"dt_limit is {self.dt_limit}: give a pair with 0 <= lower <= upper")

    def _check_attention(self) -> None:
        self._check_positive("n_heads", "n_kv_heads", *(["head_dim"] if self.head_dim is not None else []))
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(f"n_heads {self.n_heads} does not divide d_model {self.d_model}: set head_dim")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads {self.n_kv_heads} does not divide n_heads {self.n_heads}")
        if self.rope_theta is not None and not (
            self.rope_theta > 0 and 0 < self.rotary_dim <= self.attention_head_dim and self.rotary_dim % 2 == 0
        ):
            raise ValueError(
                f"rotary embedding needs rope_theta > 0 and an even number of rotated channels per head, not "
                f"{self.rope_theta} and {self.rotary_dim}: change rope_theta, head_dim or partial_rotary_factor"
            )

    @property
    def layers(self) -> str:
        """The pattern without its pipeline boundaries: one symbol per layer."""
        return self.pattern.replace("|", "")

    @property
    def n_layers(self) -> int:
        """Number of layers of all kinds."""
        return len(self.layers)

    @property
    def d_inner(self) -> int:
        """Inner width of the Mamba2 mixer."""
        return self.expand * self.d_model if self.n_mamba_heads is None else self.n_mamba_heads * self.headdim

    @property
    def nheads(self) -> int:
        """Heads of the Mamba2 mixer."""
        return self.d_inner // self.headdim

    @property
    def attention_head_dim(self) -> int:
        """Channels per attention head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def rotary_dim(self) -> int:
        """Rotated channels of an attention head."""
        return int(self.attention_head_dim * self.partial_rotary_factor)

    def num_parameters(self) -> int:
        """Number of parameters, counted without allocating any; a tied head counts once."""
        per_layer = {"M": self._mamba_parameters, "*": self._attention_parameters, "-": self._mlp_parameters}
        layers = sum(per_layer[symbol]() + self.d_model for symbol in self.layers)
        embeddings = self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        return embeddings + layers + self.d_model

    def _mamba_parameters(self) -> int:
        conv_channels = self.d_inner + 2 * self.n_groups * self.d_state
        in_rows = self.d_inner + conv_channels + self.nheads
        projections = in_rows * self.d_model + self.d_inner * self.d_model
        biases = (in_rows + self.d_model) * self.mamba_bias
        convolution = conv_channels * (self.d_conv + self.conv_bias)
        return projections + biases + convolution + 3 * self.nheads + self.d_inner

    def _attention_parameters(self) -> int:
        rows = (self.n_heads + 2 * self.n_kv_heads) * self.attention_head_dim
        out = self.n_heads * self.attention_head_dim * self.d_model
        return rows * self.d_model + out + (rows + self.d_model) * self.attention_bias

    def _mlp_parameters(self) -> int:
        up = 2 if self.mlp_activation == "silu-gated" else 1
        return (up + 1) * self.d_ff * self.d_model + (up * self.d_ff + self.d_model) * self.mlp_bias

    @classmethod
    def preset(cls, name: str) -> "HybridConfig":
        """The published architecture of that name, see `PRESETS`."""
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[name]

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values that JSON can hold (an infinite limit becomes None)."""
        fields = dataclasses.asdict(self)
        fields["dt_limit"] = [None if math.isinf(limit) else limit for limit in self.dt_limit]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; every field must be there and no other.

        Raises:
            ValueError: unknown or missing fields, named.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown, missing = sorted(fields.keys() - known), sorted(known - fields.keys())
        if unknown or missing:
            raise ValueError(f"configuration has unknown fields {unknown} and misses {missing}: correct these")
        lower, upper = fields["dt_limit"]
        scaling = fields["rope_scaling"]
        return cls(
            **{
                **fields,
                "dt_limit": (lower, math.inf if upper is None else upper),
                "rope_scaling": None if scaling is None else RopeScaling(**scaling),
            }
        )


def _state_spaces(d_model: int, n_layers: int) -> HybridConfig:
    return HybridConfig(pattern="M" * n_layers, vocab_size=50288, d_model=d_model)


_MAMBA2_8B = HybridConfig(
    pattern="M" * 56, vocab_size=256000, d_model=4096, n_groups=8, chunk_size=128, tie_embeddings=False
)
_MAMBA2_HYBRID_8B = dataclasses.replace(
    _MAMBA2_8B,
    pattern="M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-",
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    d_ff=16384,
)

PRESETS: dict[str, HybridConfig] = {
    "mamba2-130m": _state_spaces(768, 24),
    "mamba2-370m": _state_spaces(1024, 48),
    "mamba2-780m": _state_spaces(1536, 48),
    "mamba2-1.3b": _state_spaces(2048, 48),
    "mamba2-2.7b": _state_spaces(2560, 64),
    "mamba2-8b": _MAMBA2_8B,
    "mamba2-hybrid-8b": _MAMBA2_HYBRID_8B,
    "nemotron-h-8b": dataclasses.replace(
        _MAMBA2_HYBRID_8B,
        pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        vocab_size=131072,
        d_ff=21504,
        mlp_activation="relu2",
        residual_in_fp32=False,
    ),
    "tiny": HybridConfig(
        pattern="M-M*-M-",
        vocab_size=512,
        d_model=64,
        d_state=16,
        headdim=16,
        chunk_size=32,
        n_heads=4,
        n_kv_heads=2,
        d_ff=128,
    ),
}
"""Published sizes (arXiv 2405.21060; 2406.07887; 2504.03624) and a tiny hybrid for tests and first runs."""
