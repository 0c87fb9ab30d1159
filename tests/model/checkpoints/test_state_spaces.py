"""The checkpoints of state-spaces, written here as mamba_ssm writes them; transformers computes what they mean."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from tests.model.checkpoints import oracle
from tests.model.compare import assert_agree

CONFIG: dict[str, Any] = {
    "d_model": 64,
    "d_intermediate": 0,
    "n_layer": 3,
    "vocab_size": 90,
    "ssm_cfg": {"layer": "Mamba2", "d_state": 16, "headdim": 16, "ngroups": 2},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 16,
    "tie_embeddings": True,
}


def write(folder: Path, theirs: Any, config: dict[str, Any]) -> None:
    tensors = {name.replace("embeddings", "embedding"): tensor for name, tensor in theirs.state_dict().items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("tied", [True, False])
def test_same_function(tied: bool, tmp_path: Path) -> None:
    theirs = oracle.make_mamba2(n_groups=2, tie_word_embeddings=tied)
    write(tmp_path, theirs, {**CONFIG, "tie_embeddings": tied})
    ours = load_pretrained(tmp_path)
    assert ours.config.vocab_size == 96  # padded
    input_ids = torch.randint(0, 90, (2, 40))
    assert_agree([ours(input_ids).logits], [theirs(input_ids).logits], 1e-5)


def test_the_fields_of_the_published_ones_and_their_defaults(tmp_path: Path) -> None:
    """Only `layer` is in their ssm_cfg; the rest are mamba_ssm's defaults."""
    config = {**CONFIG, "d_model": 128, "vocab_size": 50277, "n_layer": 1, "ssm_cfg": {"layer": "Mamba2"}}
    expected = HybridConfig(pattern="M", vocab_size=50288, d_model=128)
    save_pretrained(HybridLM(expected), tmp_path, format="state-spaces")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_pretrained(tmp_path).config == expected


def test_what_we_write_has_the_names_of_mamba_ssm(tmp_path: Path) -> None:
    theirs = oracle.make_mamba2(n_groups=2, tie_word_embeddings=True)
    write(tmp_path, theirs, CONFIG)
    ours = load_pretrained(tmp_path)
    save_pretrained(ours, tmp_path / "out", format="state-spaces")
    written = torch.load(tmp_path / "out/pytorch_model.bin", weights_only=True)
    expected = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    assert written["lm_head.weight"].data_ptr() == written["backbone.embedding.weight"].data_ptr()  # stored once
    fields = json.loads((tmp_path / "out/config.json").read_text())
    assert (fields["d_model"], fields["n_layer"], fields["vocab_size"]) == (64, 3, 96)
    assert fields["ssm_cfg"]["layer"] == "Mamba2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ssm_cfg": {}}, "Mamba 1"),
        ({"ssm_cfg": {"layer": "Mamba1"}}, "layer is 'Mamba1'"),
        ({"ssm_cfg": {"layer": "Mamba2", "window": 3}}, r"unknown fields \['window'\]"),
        ({"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, "D_has_hdim is True"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx is \[1\]"),
        ({"d_intermediate": 8}, "d_intermediate is 8"),
        ({"rms_norm": False}, "rms_norm is False"),
        ({"new": 1}, r"unknown fields \['new'\]"),
        ({"n_layer": 1 << 40}, "n_layer is"),
        ({"pad_vocab_size_multiple": 0}, "config.json: "),
    ],
)
def test_other_functions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, oracle.make_mamba2(n_groups=2), {**CONFIG, **changes})
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    write(tmp_path, oracle.make_mamba2(n_groups=2), {key: value for key, value in CONFIG.items() if key != "rms_norm"})
    with pytest.raises(ValueError, match=r"misses \['rms_norm'\]"):
        load_pretrained(tmp_path)


def test_several_pickled_files_with_an_index(tmp_path: Path) -> None:
    theirs = oracle.make_mamba2(n_groups=2, tie_word_embeddings=True)
    write(tmp_path, theirs, CONFIG)
    tensors = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    (tmp_path / "pytorch_model.bin").unlink()
    weight_map = {}
    for i, names in enumerate((sorted(tensors)[:9], sorted(tensors)[9:])):
        file = f"pytorch_model-{i}.bin"
        torch.save({name: tensors[name] for name in names}, tmp_path / file)
        weight_map |= dict.fromkeys(names, file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    input_ids = torch.randint(0, 90, (1, 20))
    assert_agree([load_pretrained(tmp_path)(input_ids).logits], [theirs(input_ids).logits], 1e-5)
