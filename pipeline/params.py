"""The typed schema of params.yaml: one dataclass per section, checks included, no defaults of its own.

`load_params` reads the file, so every stage sees every mistake before any work starts. Messages name the full key.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from model.config import HybridConfig
from pipeline.rules import select_rules

EMBEDDED = "embedded"
"""In place of a path: what the repository brings itself (a committed folder, so that DVC can depend on it)."""


EXPORT_FORMATS = ("native", "hf-mamba2", "hf-nemotron-h", "hf-bamba", "hf-granite", "state-spaces", "megatron")
"""The names in model.checkpoints.FORMATS, which takes torch to import."""

PII_KINDS = ("email", "ip", "phone")
"""The names in pipeline.preprocess.pii.KINDS, which takes polars to import."""

TOKEN_FORMATS = ("rows", "megatron", "megatron-bridge", "parquet", "jsonl")
"""The packed rows, which training reads, and the names in pipeline.tokenize.formats."""


MIN_VOCAB_SIZE = 256 + 5
"""Of a tokenizer that is trained here: every byte, and the special tokens of pipeline/chat/tokenizer.py."""
MOST_VOCAB_SIZE = 2**24
"""Training takes 50 bytes for each at once, however little text there is."""

MOST = 1000
"""Words of an n-gram, and bands and rows of MinHash, before memory runs out over any text."""


class BadRecords(Enum):
    stop = "stop"
    quarantine = "quarantine"


class LongDocuments(Enum):
    split = "split"
    drop = "drop"


class LongConversations(Enum):
    truncate = "truncate"
    drop = "drop"


class BudgetUnit(Enum):
    steps = "steps"
    tokens = "tokens"
    epochs = "epochs"


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"


class Keep(Enum):
    best = "best"
    last = "last"


class Executor(Enum):
    local = "local"
    ray = "ray"
    slurm = "slurm"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True)
class IngestParams:
    source: str
    shard_mb: float
    max_record_mb: float
    max_expansion: float
    bad_records: BadRecords

    def __post_init__(self) -> None:
        is_address = "://" in self.source
        if is_address or (any(letter in self.source for letter in "*?[") and not os.path.exists(self.source)):
            raise ValueError(
                f"source is {'the address' if is_address else 'the pattern'} {self.source!r}, where DVC would see no "
                f"change: run `python -m pipeline.sources FOLDER {shlex.quote(self.source)}`, which writes a "
                "sources.yaml into a folder of your choice and pins what lies outside of it; then name the folder here"
            )
        if os.path.basename(self.source) == "sources.yaml":
            raise ValueError("source is a sources.yaml: name its folder, so that DVC sees what else lies in it")
        _require_path(self, "source")
        for name in ("shard_mb", "max_record_mb"):
            _require(self, name, getattr(self, name) > 0, "must be above 0")
        _require(self, "max_expansion", self.max_expansion >= 1, "must be at least 1")


@dataclass(frozen=True)
class PreprocessParams:
    min_chars: int
    max_chars: int
    quality: list[str]
    thresholds: dict[str, float]
    pii: list[str]
    language_model: str
    languages: list[str]
    min_language_score: float
    near_duplicates: bool
    near_words: int
    near_bands: int
    near_rows: int
    validation_fraction: float
    test_fraction: float
    contamination_words: int
    contamination_share: float
    evaluation_sets: str
    weights: dict[str, float]
    temperature: float
    max_repeats: int
    seed: int

    def __post_init__(self) -> None:
        _require(self, "min_chars", self.min_chars >= 1, "must be at least 1")
        _require(self, "max_chars", self.max_chars >= self.min_chars, "must be at least min_chars")
        for name in ("validation_fraction", "test_fraction"):
            _require(self, name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        _require_seed(self)
        for name in ("near_words", "near_bands", "near_rows"):
            _require(self, name, 1 <= getattr(self, name) <= MOST, f"must be at least 1 and at most {MOST}")
        words, rule = self.contamination_words, f"must be at least 0 (0: off) and at most {MOST}"
        _require(self, "contamination_words", 0 <= words <= MOST, rule)
        _require(self, "contamination_share", 0 <= self.contamination_share <= 1, "must be from 0 to 1")
        _require_path(self, "evaluation_sets")
        for source, weight in self.weights.items():
            if not (0 <= weight < math.inf):
                raise ValueError(f"weights.{source} must be a finite number of at least 0; it is {weight!r}")
        _require(self, "temperature", self.temperature > 0, "must be above 0 (1: the weights as they are)")
        _require(self, "max_repeats", 1 <= self.max_repeats <= 1000, "must be from 1 to 1000")
        held_out = self.validation_fraction + self.test_fraction
        _require(self, "test_fraction", held_out < 1, "and validation_fraction together must stay below 1")
        select_rules(self.quality, self.thresholds)  # raises on a name that it does not know
        known = set(self.pii) <= set(PII_KINDS) and len(set(self.pii)) == len(self.pii)
        _require(self, "pii", known, f"must name each at most once of {', '.join(PII_KINDS)}")
        named = self.language_model != EMBEDDED
        is_file = not named or os.path.isfile(self.language_model)
        _require(self, "language_model", is_file, f"must be a file, or the word {EMBEDDED}")
        _require(self, "languages", named or not self.languages, "needs language_model, a file of yours")
        _require(self, "min_language_score", 0 <= self.min_language_score <= 1, "must be from 0 to 1")


@dataclass(frozen=True)
class TokenizeParams:
    tokenizer: str
    vocab_size: int
    chat_template: str
    fast: bool
    seqlen: int
    long_documents: LongDocuments
    long_conversations: LongConversations
    formats: list[str]
    seed: int

    def __post_init__(self) -> None:
        _require_path(self, "tokenizer")
        _require_path(self, "chat_template")
        is_file = self.chat_template == EMBEDDED or os.path.isfile(self.chat_template)
        _require(self, "chat_template", is_file, f"must be a file of Jinja, or {EMBEDDED}")
        least = MIN_VOCAB_SIZE
        if self.tokenizer == EMBEDDED:
            _require(
                self,
                "vocab_size",
                least <= self.vocab_size <= MOST_VOCAB_SIZE,
                f"must be at least {least} (256 bytes + 5 special tokens) and at most {MOST_VOCAB_SIZE}",
            )
        _require_seed(self)
        _require(self, "seqlen", 8 <= self.seqlen <= 2**20, f"must be from 8 to {2**20}")
        known = set(self.formats) <= set(TOKEN_FORMATS)
        _require(self, "formats", known, f"must be of {', '.join(TOKEN_FORMATS)}")
        _require(self, "formats", "rows" in self.formats, "must have rows, which training reads")


@dataclass(frozen=True)
class ModelParams:
    checkpoint: str
    extend_vocabulary: bool
    pattern: str
    d_model: int
    d_state: int
    headdim: int
    expand: int
    n_groups: int
    n_heads: int
    n_kv_heads: int
    rope_theta: float
    d_ff: int
    mlp_activation: str
    tie_embeddings: bool
    residual_in_fp32: bool

    def __post_init__(self) -> None:
        _require_path(self, "checkpoint")
        _require(self, "rope_theta", self.rope_theta >= 0, "must be at least 0 (0: no position embedding)")
        if self.checkpoint == EMBEDDED:
            self.hybrid_config(vocab_size=512)  # raises on an impossible combination of sizes

    def hybrid_config(self, vocab_size: int) -> HybridConfig:
        """The architecture that these sizes describe, for a vocabulary of `vocab_size`."""
        return HybridConfig(
            pattern=self.pattern,
            vocab_size=vocab_size,
            d_model=self.d_model,
            d_state=self.d_state,
            headdim=self.headdim,
            expand=self.expand,
            n_groups=self.n_groups,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            rope_theta=self.rope_theta or None,
            d_ff=self.d_ff,
            mlp_activation=self.mlp_activation,  # type: ignore[arg-type]  # HybridConfig checks it
            tie_embeddings=self.tie_embeddings,
            residual_in_fp32=self.residual_in_fp32,
        )


@dataclass(frozen=True)
class TrainParams:
    """One training run: the sections `base` and `finetune`."""

    seed: int
    budget: float
    budget_unit: BudgetUnit
    batch_size: int
    micro_batch_size: int
    lr: float
    min_lr_ratio: float
    warmup_fraction: float
    beta1: float
    beta2: float
    weight_decay: float
    grad_clip: float
    precision: Precision
    validate_every: int
    validation_rows: int
    keep: Keep
    log_every: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batch_size", "validate_every", "validation_rows", "log_every"):
            _require(self, name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("budget", "lr", "grad_clip"):
            _require(self, name, getattr(self, name) > 0, "must be above 0")
        for name in ("min_lr_ratio", "warmup_fraction"):
            _require(self, name, 0 <= getattr(self, name) <= 1, "must be from 0 to 1")
        for name in ("beta1", "beta2"):
            _require(self, name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        _require_seed(self)
        _require(self, "weight_decay", self.weight_decay >= 0, "must be at least 0")
        if self.budget_unit is not BudgetUnit.epochs:
            _require(
                self,
                "budget",
                self.budget == int(self.budget),
                f"must be whole when budget_unit is {self.budget_unit.name}",
            )
        whole = self.batch_size % self.micro_batch_size == 0
        _require(self, "micro_batch_size", whole, f"must divide batch_size, which is {self.batch_size}")


@dataclass(frozen=True)
class EvaluateParams:
    batch_size: int
    samples: int
    max_new_tokens: int
    kneser_ney_discount: float

    def __post_init__(self) -> None:
        _require(self, "batch_size", self.batch_size >= 1, "must be at least 1")
        _require(self, "max_new_tokens", self.max_new_tokens >= 1, "must be at least 1")
        _require(self, "samples", self.samples >= 0, "must be at least 0")
        _require(self, "kneser_ney_discount", 0 < self.kneser_ney_discount < 1, "must be between 0 and 1")


@dataclass(frozen=True)
class ExportParams:
    format: str

    def __post_init__(self) -> None:
        _require(self, "format", self.format in EXPORT_FORMATS, f"must be one of {', '.join(EXPORT_FORMATS)}")


@dataclass(frozen=True)
class LaunchParams:
    workers: int
    executor: Executor
    ray_address: str
    slurm_options: str
    device: Device
    checkpoint_seconds: float

    def __post_init__(self) -> None:
        _require(self, "workers", self.workers >= 0, "must be at least 0 (0: one per core)")
        known = self.ray_address in ("", "auto") or re.fullmatch(r"[^\s:/]+:\d+", self.ray_address)
        _require(self, "ray_address", bool(known), "must be empty (Ray on this machine), auto, or host:port")
        _require(self, "slurm_options", _is_shell(self.slurm_options), "must have its quotation marks in pairs")
        _require(self, "checkpoint_seconds", self.checkpoint_seconds >= 0, "must be at least 0")


@dataclass(frozen=True)
class TrackingParams:
    experiment: str
    uri: str

    def __post_init__(self) -> None:
        _require(self, "experiment", bool(self.experiment.strip()), "must name an experiment")


@dataclass(frozen=True)
class Params:
    """The whole of params.yaml."""

    ingest: IngestParams
    preprocess: PreprocessParams
    tokenize: TokenizeParams
    model: ModelParams
    base: TrainParams
    finetune: TrainParams
    evaluate: EvaluateParams
    export: ExportParams
    launch: LaunchParams
    tracking: TrackingParams


class _Loader(yaml.CSafeLoader):  # a tenth of the time of OmegaConf's, which is written in Python
    """YAML as OmegaConf reads it: a key stands once, 1e-3 is a number, a date is text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = set()
        for key in (key for key, _ in node.value if key.tag == self.DEFAULT_SCALAR_TAG):
            if key.value in found:
                raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key.value}", key.start_mark)
            found.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    letter: [resolver for resolver in resolvers if resolver[0] != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_EXPONENT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        ValueError: unknown or missing key, wrong type, impossible value or combination; the message has the full key.
    """
    raw = _read_yaml(path)
    _check_keys(raw, Params, path, prefix="")
    sections: dict[str, Any] = {}
    for section, schema in get_type_hints(Params).items():
        try:
            merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(raw[section]))
            sections[section] = OmegaConf.to_object(merged)
        except MissingMandatoryValue as error:
            raise ValueError(f"{path}: {section}.{error.full_key} has no value") from None
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}: {section}.{error.full_key}: {reason}") from None
        except OverflowError as error:  # an integer beyond floats; its later lines say where
            where = next((line.split()[-1] for line in str(error).splitlines() if "full_key:" in line), "")
            raise ValueError(f"{path}: {section}.{where}: too large a number") from None
        except ValueError as error:
            raise ValueError(f"{path}: {section}.{error}") from None
    return Params(**sections)


def main() -> None:
    """`python -m pipeline.params`: check params.yaml before DVC starts anything."""
    try:
        load_params()
    except ValueError as error:
        sys.exit(f"error: {error}")


def flatten(params: Any, prefix: str = "") -> dict[str, Any]:
    """`{"finetune.lr": 3e-4, …}`: each leaf of a (nested) dataclass under its full key, enums by name."""
    flat: dict[str, Any] = {}
    for key, value in (asdict(params) if is_dataclass(params) and not isinstance(params, type) else params).items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value.name if isinstance(value, Enum) else value
    return flat


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: not found; run from the repository's root") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error.reason}; write the file as UTF-8") from None
    if "${" in text:
        line = text[: text.index("${")].count("\n") + 1
        raise ValueError(
            f"{path}:{line}: no `${{…}}` here: DVC would not notice a change of what it refers to; write the value"
        )
    try:
        raw = yaml.load(text, _Loader)  # OmegaConf.create reads it with Python alone
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected sections ({', '.join(f.name for f in fields(Params))}), found none")
    return raw


def _check_keys(raw: Any, schema: type, path: Path, prefix: str) -> None:
    """Names an unknown or missing key before OmegaConf sees it, so that the message can help."""
    known = get_type_hints(schema)
    if not isinstance(raw, dict):
        raise ValueError(
            f"{path}: {prefix.rstrip('.')} must be a section with the keys {', '.join(known)}; found {raw!r}"
        )
    for key in raw:
        if key not in known:
            import difflib  # takes a while

            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(known)}"
            raise ValueError(f"{path}: unknown key {prefix}{key}; {hint}")
    for key, kind in known.items():
        if key not in raw:
            raise ValueError(f"{path}: {prefix}{key} is missing")
        if is_dataclass(kind):
            _check_keys(raw[key], kind, path, f"{prefix}{key}.")  # type: ignore[arg-type]
        elif raw[key] is None:
            raise ValueError(f"{path}: {prefix}{key} has no value")
        elif get_origin(kind) is list and not isinstance(raw[key], list):
            raise ValueError(f"{path}: {prefix}{key} must be a list, as in [{raw[key]}]; it is {raw[key]!r}")


def _is_shell(words: str) -> bool:
    try:
        shlex.split(words)
    except ValueError:
        return False
    return True


def _require(section: object, name: str, holds: bool, rule: str) -> None:
    value = getattr(section, name)
    if isinstance(value, float) and not math.isfinite(value):
        holds, rule = False, "must be a finite number"
    if not holds:
        raise ValueError(f"{name} {rule}; it is {value!r}")


def _require_seed(section: object) -> None:
    seed: int = section.seed  # type: ignore[attr-defined]
    _require(section, "seed", 0 <= seed < 2**32, "must be from 0 to 4294967295")


def _require_path(section: object, name: str) -> None:
    value = getattr(section, name)
    if value != EMBEDDED and not os.path.exists(value):  # pathlib's raises on a name that is too long
        raise ValueError(f"{name}: no file or directory at {value!r} (nor is it the word {EMBEDDED!r})")


if __name__ == "__main__":
    main()
