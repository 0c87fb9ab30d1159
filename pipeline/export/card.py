"""The model card: what the model is, and what made it, by content. The same inputs give the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from model import HybridConfig
from pipeline.chat.schemas import Message
from pipeline.chat.template import ChatTemplate
from pipeline.export.formats import how_to_load, library
from pipeline.hashing import content_sha256
from pipeline.params import EMBEDDED, Params, flatten
from pipeline.shards import read_manifest

DATA = ("data/ingested", "data/clean", "data/tokens")
MODELS = {"base": "base", "finetuned": "fine-tuned"}
"""Columns of the metrics that come first, by their name in metrics.json; the baselines follow under their own names."""

HOW_TO_RUN = ("launch", "tracking")
"""Sections of params.yaml that change nothing of the model; an address in them may hold a password."""

EXAMPLE: list[Message] = [{"role": role, "content": "..."} for role in ("system", "user", "assistant")]


@dataclass(frozen=True)
class Folder:
    """A folder of data: the sha256 of its manifest, and what that counts."""

    path: str
    sha256: str
    records: str


@dataclass(frozen=True)
class Facts:
    """Everything that the card says."""

    config: HybridConfig
    params: Params
    model: str
    """sha256 of artifacts/finetune/model."""
    conversations: bool
    """Whether it was fine-tuned on these, or else on documents."""
    bos: str
    example: str
    """A conversation as the model reads it."""
    data: list[Folder]
    metrics: dict[str, dict[str, float]]
    training: dict[str, float]
    """metrics.json of finetune."""


def read_facts(source: Path, config: HybridConfig, template: ChatTemplate, params: Params) -> Facts:
    """Collect them from data/ and artifacts/.

    Args:
        source: the fine-tuned model.
        config: its architecture.
    """
    manifests = {path: read_manifest(Path(path)) for path in DATA}
    decode = partial(template.tokenizer.backend.decode, skip_special_tokens=False)
    counts = (_ingested, _clean, _tokens)
    return Facts(
        config=config,
        params=params,
        model=content_sha256(source),
        conversations="train" in manifests["data/tokens"].get("conversations", {}),
        bos=decode([template.tokenizer.bos_id]),
        example=decode(template.encode_turns(EXAMPLE)),
        data=[
            Folder(path, content_sha256(Path(path)), count(manifest))
            for count, (path, manifest) in zip(counts, manifests.items(), strict=True)
        ],
        metrics=_read_json(Path("artifacts/evaluate/metrics.json")),
        training=_read_json(Path("artifacts/finetune/metrics.json")),
    )


def render(facts: Facts) -> str:
    """The card as Markdown, with the front matter of Hugging Face's hub."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    format = facts.params.export.format
    layers = Counter(facts.config.layers)
    return environment.get_template("card.md.j2").render(
        facts=facts,
        config=facts.config,
        embedded=EMBEDDED,
        layers=layers,
        library=library(format),
        how_to_load=how_to_load(format, conversations=facts.conversations),
        sizes=_sizes(facts.config, layers),
        columns={**MODELS, **{name: name for name in facts.metrics if name not in MODELS}},
        rows=sorted({figure for figures in facts.metrics.values() for figure in figures}),
        params=_params_yaml(facts.params),
    )


def _sizes(config: HybridConfig, layers: Counter[str]) -> dict[str, Any]:
    """The sizes that count in an architecture of these layers, by our names."""
    names = ["pattern", "d_model", "vocab_size", "tie_embeddings"]
    names += ["d_state", "headdim", "n_groups"] if layers["M"] else []
    names += ["n_heads", "n_kv_heads", "rope_theta"] if layers["*"] else []
    names += ["d_ff", "mlp_activation"] if layers["-"] else []
    return {name: getattr(config, name) for name in names}


def _ingested(manifest: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in manifest["records"].items() if count)


def _clean(manifest: dict[str, Any]) -> str:
    repeated = sum(manifest["repeated"].values())
    kept = f"{manifest['records_out'] - repeated:,} of {manifest['records_in']:,} records kept"
    return f"{kept}, some of them several times: {manifest['records_out']:,} in all" if repeated else kept


def _tokens(manifest: dict[str, Any]) -> str:
    kinds = (kind for kind in ("documents", "conversations") if kind in manifest)
    splits = ((kind, *split) for kind in kinds for split in manifest[kind].items())
    return "; ".join(f"{kind}, {split}: {_kept(found):,} ({found['tokens']:,} tokens)" for kind, split, found in splits)


def _kept(figures: dict[str, Any]) -> int:
    return int(figures["records_in"] - sum(figures["dropped"].values()))


def _params_yaml(params: Params) -> str:
    """params.yaml, each value as its type has it, without comments and the sections of `HOW_TO_RUN`."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in flatten(params).items():
        section, _, name = key.partition(".")
        if section not in HOW_TO_RUN:
            sections.setdefault(section, {})[name] = value
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
