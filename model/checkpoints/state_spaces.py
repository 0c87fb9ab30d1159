"""The Mamba2 checkpoints of state-spaces: config.json of mamba_ssm beside a pickled state dict."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.checkpoints import layers
from model.checkpoints.deferred import deferred
from model.checkpoints.files import CONFIG, PICKLED, PickledFiles, read_json
from model.checkpoints.format import Fields, Format
from model.checkpoints.huggingface import check_value, count
from model.checkpoints.keymap import Entry, plan
from model.checkpoints.writing import json_writer, replaced
from model.config import HybridConfig
from model.hybrid import HybridLM

_SSM = {
    "d_state": "d_state",
    "d_conv": "d_conv",
    "expand": "expand",
    "headdim": "headdim",
    "ngroups": "n_groups",
    "norm_before_gate": "norm_before_gate",
    "dt_min": "dt_min",
    "dt_max": "dt_max",
    "dt_init_floor": "dt_init_floor",
    "dt_limit": "dt_limit",
    "bias": "mamba_bias",
    "conv_bias": "conv_bias",
    "chunk_size": "chunk_size",
}
"""Of ssm_cfg; what is not there has the default of mamba_ssm, which is that of our configuration."""

_FIXED: Mapping[str, tuple[Any, ...]] = {
    "layer": ("Mamba2",),
    "rmsnorm": (True,),
    "D_has_hdim": (False,),
    "d_ssm": (None,),
}
_SSM_WITHOUT_EFFECT = {"A_init_range", "use_mem_eff_path", "conv_init", "process_group", "sequence_parallel"}
_REQUIRED = {"d_model", "n_layer", "vocab_size", "ssm_cfg", "rms_norm", "residual_in_fp32"}
_OPTIONAL = {"d_intermediate", "attn_layer_idx", "attn_cfg", "pad_vocab_size_multiple", "tie_embeddings"}
_NORM_EPS = 1e-5
"""Of mamba_ssm's code; its files do not say."""


def _recognises(directory: Path, fields: Fields | None) -> bool:
    return fields is not None and "model_type" not in fields and {"n_layer", "ssm_cfg"} <= fields.keys()


def _read(fields: Fields) -> HybridConfig:
    unknown = sorted(fields.keys() - _REQUIRED - _OPTIONAL - {"fused_add_norm"})
    missing = sorted(_REQUIRED - fields.keys())
    if unknown or missing:
        raise ValueError(f"a configuration of mamba_ssm has unknown fields {unknown} and misses {missing}")
    check_value(fields, "rms_norm", True)
    check_value(fields, "d_intermediate", 0)
    check_value(fields, "attn_layer_idx", [], None)
    ssm = fields["ssm_cfg"]
    if not isinstance(ssm, dict) or "layer" not in ssm:
        raise ValueError(f"ssm_cfg is {ssm!r}: without 'layer': 'Mamba2' it is of Mamba 1, which is not supported")
    for name, allowed in _FIXED.items():
        check_value(ssm, name, *allowed)
    unknown = sorted(ssm.keys() - _SSM.keys() - _FIXED.keys() - _SSM_WITHOUT_EFFECT)
    if unknown:
        raise ValueError(f"ssm_cfg has unknown fields {unknown}")
    multiple = fields.get("pad_vocab_size_multiple", 8)
    padded = -(-count(fields, "vocab_size") // multiple) * multiple
    return HybridConfig(
        pattern="M" * count(fields, "n_layer"),
        vocab_size=padded,
        d_model=fields["d_model"],
        norm_eps=_NORM_EPS,
        residual_in_fp32=fields["residual_in_fp32"],
        tie_embeddings=fields.get("tie_embeddings", True),
        **{ours: ssm[theirs] for theirs, ours in _SSM.items() if theirs in ssm},
    )


def _write_config(config: HybridConfig) -> Fields:
    if set(config.layers) != {"M"}:
        raise ValueError(f"pattern {config.pattern!r} has layers other than M, which state-spaces cannot express")
    if config.d_inner != config.expand * config.d_model:
        raise ValueError(f"{config.nheads} heads of {config.headdim} are not expand * d_model, as state-spaces needs")
    return {
        "d_model": config.d_model,
        "d_intermediate": 0,
        "n_layer": config.n_layers,
        "vocab_size": config.vocab_size,
        "ssm_cfg": {"layer": "Mamba2"} | {theirs: getattr(config, ours) for theirs, ours in _SSM.items()},
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": True,
        "residual_in_fp32": config.residual_in_fp32,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 16 if config.vocab_size % 16 == 0 else 1,
        "tie_embeddings": config.tie_embeddings,
    }


def _entries(model: HybridLM) -> list[Entry]:
    return [
        Entry("backbone.embedding.weight", ("embedding.weight",)),
        *(entry for i in range(model.config.n_layers) for entry in _layer(i)),
        Entry("backbone.norm_f.weight", ("norm.weight",)),
        layers.head("lm_head.weight", model.config.tie_embeddings, always=True),
    ]


def _layer(i: int) -> list[Entry]:
    theirs, ours = f"backbone.layers.{i}", f"layers.{i}"
    return [
        Entry(f"{theirs}.norm.weight", (f"{ours}.norm.weight",)),
        *layers.mamba(f"{theirs}.mixer", f"{ours}.mixer"),
    ]


def _write(directory: Path, model: HybridLM, fields: Fields) -> None:
    tensors = deferred(plan(model, _entries(model)))
    with replaced(directory) as write:
        write(PICKLED, partial(torch.save, tensors))
        write(CONFIG, json_writer(fields))


FORMAT = Format(
    recognises=_recognises,
    read_config=lambda directory: _read(read_json(directory / CONFIG)),
    write_config=_write_config,
    reread=_read,
    open=PickledFiles,
    entries=_entries,
    write=_write,
)
