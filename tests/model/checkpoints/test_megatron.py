"""Megatron's files, written here rank by rank as its layers share their tensors: they merge to the bitwise original."""

import argparse
import dataclasses
import enum
import shutil
import sys
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained

CONFIG = HybridConfig(
    pattern="M-*M",
    vocab_size=96,
    d_model=64,
    d_state=8,
    headdim=8,
    n_groups=8,
    chunk_size=128,
    n_heads=16,
    n_kv_heads=8,
    head_dim=8,
    d_ff=96,
    tie_embeddings=False,
    residual_in_fp32=False,
)


def args_of(config: HybridConfig, ranks: int) -> argparse.Namespace:
    """As --args of a training run have it."""
    return argparse.Namespace(
        num_layers=config.n_layers,
        hidden_size=config.d_model,
        num_attention_heads=config.n_heads,
        group_query_attention=config.n_kv_heads != config.n_heads,
        num_query_groups=config.n_kv_heads,
        kv_channels=config.attention_head_dim,
        ffn_hidden_size=config.d_ff,
        hybrid_override_pattern=config.pattern,
        mamba_state_dim=config.d_state,
        mamba_head_dim=config.headdim,
        mamba_num_groups=config.n_groups,
        norm_epsilon=config.norm_eps,
        normalization="RMSNorm",
        padded_vocab_size=config.vocab_size,
        untie_embeddings_and_output_weights=not config.tie_embeddings,
        squared_relu=config.mlp_activation == "relu2",
        swiglu=config.mlp_activation == "silu-gated",
        add_bias_linear=config.attention_bias,
        position_embedding_type="none" if config.rope_theta is None else "rope",
        rotary_base=config.rope_theta or 10000,
        rotary_percent=1.0,
        tensor_model_parallel_size=ranks,
        pipeline_model_parallel_size=1,
        learning_rate=1e-4,
        params_dtype=torch.float32,
    )


def rank_tensors(model: HybridLM, rank: int, ranks: int) -> dict[str, Tensor]:
    """What a tensor-parallel rank of Megatron holds, spelled out layer by layer."""
    config, p = model.config, {name: tensor.detach() for name, tensor in model.named_parameters()}

    def cut(name: str, dim: int = 0) -> Tensor:
        return p[name].chunk(ranks, dim)[rank]

    found = {"embedding.word_embeddings.weight": cut("embedding.weight"), "decoder.final_norm.weight": p["norm.weight"]}
    if not config.tie_embeddings:
        found["output_layer.weight"] = cut("head.weight")
    for i, symbol in enumerate(config.layers):
        to, of = f"decoder.layers.{i}.", f"layers.{i}.mixer."
        norm = p[f"layers.{i}.norm.weight"]
        if symbol == "M":
            found[to + "norm.weight"] = norm
            rows = [cut(f"{of}{name}_proj.weight") for name in ("z", "x", "B", "C", "dt")]
            found[to + "mixer.in_proj.weight"] = torch.cat(rows)
            for kind in ("weight", "bias"):
                channels = torch.cat([cut(f"{of}{name}_conv.{kind}") for name in "xBC"])
                found[to + f"mixer.conv1d.{kind}"] = channels[:, None] if kind == "weight" else channels
            for name in ("A_log", "D", "dt_bias"):
                found[to + f"mixer.{name}"] = cut(f"{of}scan.{name}")
            found[to + "mixer.norm.weight"] = cut(of + "norm.weight")
            found[to + "mixer.out_proj.weight"] = cut(of + "out_proj.weight", 1)
        elif symbol == "*":
            found[to + "self_attention.linear_qkv.layer_norm_weight"] = norm
            for kind in ("weight", "bias"):
                if of + f"q_proj.{kind}" in p:
                    groups = []
                    for group in range(rank * config.n_kv_heads // ranks, (rank + 1) * config.n_kv_heads // ranks):
                        for name in "qkv":
                            groups.append(p[f"{of}{name}_proj.{kind}"].chunk(config.n_kv_heads)[group])
                    found[to + f"self_attention.linear_qkv.{kind}"] = torch.cat(groups)
            found[to + "self_attention.linear_proj.weight"] = cut(of + "o_proj.weight", 1)
            if of + "o_proj.bias" in p:
                found[to + "self_attention.linear_proj.bias"] = p[of + "o_proj.bias"]
        else:
            found[to + "mlp.linear_fc1.layer_norm_weight"] = norm
            for kind in ("weight", "bias"):
                names = [f"{of}{name}_proj.{kind}" for name in ("gate", "up")]
                if names[1] in p:
                    found[to + f"mlp.linear_fc1.{kind}"] = torch.cat([cut(name) for name in names if name in p])
            found[to + "mlp.linear_fc2.weight"] = cut(of + "down_proj.weight", 1)
            if of + "down_proj.bias" in p:
                found[to + "mlp.linear_fc2.bias"] = p[of + "down_proj.bias"]
    return {name: tensor.clone() for name, tensor in found.items()}


def write(folder: Path, model: HybridLM, ranks: int, args: Any = None, **more: Any) -> None:
    (folder / "latest_checkpointed_iteration.txt").write_text("release")
    for rank in range(ranks):
        place = folder / f"release/mp_rank_{rank:02d}"
        place.mkdir(parents=True)
        tensors: dict[str, Any] = dict(rank_tensors(model, rank, ranks))
        tensors["decoder.layers.0.mixer.in_proj._extra_state"] = None
        content = {"model": tensors, "args": args or args_of(model.config, ranks), "iteration": 0, **more}
        torch.save(content, place / "model_optim_rng.pt")


VARIANTS: dict[str, dict[str, Any]] = {
    "as NVIDIA's": {},
    "squared ReLU, tied": {"mlp_activation": "relu2", "tie_embeddings": True},
    "gated, biases, rotary": {
        "mlp_activation": "silu-gated",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_theta": 1e4,
    },
    "as many keys as queries": {"n_kv_heads": 16},
}


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_ranks_merge_to_the_bitwise_original(variant: str, ranks: int, tmp_path: Path) -> None:
    model = HybridLM(dataclasses.replace(CONFIG, **VARIANTS[variant]))
    write(tmp_path, model, ranks)
    loaded = load_pretrained(tmp_path)
    assert loaded.config == dataclasses.replace(model.config, n_mamba_heads=None)
    state = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_we_write_is_what_one_rank_holds(variant: str, tmp_path: Path) -> None:
    model = HybridLM(dataclasses.replace(CONFIG, **VARIANTS[variant]))
    save_pretrained(model, tmp_path, format="megatron")
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text().strip() == "release"
    with torch.serialization.safe_globals([argparse.Namespace]):
        written = torch.load(tmp_path / "release/mp_rank_00/model_optim_rng.pt", weights_only=True)
    expected = rank_tensors(model, 0, 1)
    assert written["model"].keys() == expected.keys()
    assert all(torch.equal(written["model"][name], tensor) for name, tensor in expected.items())
    told, meant = vars(written["args"]), vars(args_of(model.config, 1))
    assert {name: told[name] for name in meant.keys() & told.keys()} == {
        name: meant[name] for name in meant.keys() & told.keys()
    }
    for name, tensor in load_pretrained(tmp_path).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize("ranks", [1, 4])
def test_a_tied_head_that_is_stored_all_the_same_is_the_embedding(ranks: int, tmp_path: Path) -> None:
    model = HybridLM(dataclasses.replace(CONFIG, tie_embeddings=True))
    write(tmp_path, model, ranks)
    paths = sorted(tmp_path.glob("release/*/model_optim_rng.pt"))
    for path in paths:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, weights_only=True)
        content["model"]["output_layer.weight"] = content["model"]["embedding.word_embeddings.weight"].clone()
        torch.save(content, path)
    loaded = load_pretrained(tmp_path)
    assert loaded.head is None
    assert torch.equal(loaded.embedding.weight, model.embedding.weight)
    content["model"]["output_layer.weight"][-1, -1] += 1
    torch.save(content, paths[-1])
    with pytest.raises(ValueError, match=r"output_layer\.weight differs from the embedding"):
        load_pretrained(tmp_path)


def test_the_newer_name_of_the_norm_and_an_iteration(tmp_path: Path) -> None:
    model = HybridLM(CONFIG)
    place = tmp_path / "iter_0000100/mp_rank_00"
    place.mkdir(parents=True)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("100\n")
    renamed = {"decoder.layers.0.norm.weight": "decoder.layers.0.mixer.in_proj.layer_norm_weight"}
    tensors = {renamed.get(name, name): tensor for name, tensor in rank_tensors(model, 0, 1).items()}
    torch.save({"model": tensors, "args": args_of(CONFIG, 1)}, place / "model_optim_rng.pt")
    assert torch.equal(load_pretrained(tmp_path).layers[0].norm.weight, model.layers[0].norm.weight)


def test_settings_of_megatrons_own_classes_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("megatron.core.enums")
    kind = enum.Enum("ModelType", {"hybrid": 1}, module="megatron.core.enums")
    module.ModelType = kind  # type: ignore[attr-defined]
    for name in ("megatron", "megatron.core"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "megatron.core.enums", module)
    model = HybridLM(CONFIG)
    write(tmp_path, model, 1, kind=kind.hybrid)  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "megatron.core.enums")
    assert torch.equal(load_pretrained(tmp_path).norm.weight, model.norm.weight)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("attacked"),))


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.system, ("touch attacked",))


@pytest.mark.parametrize("attack", [Attack(), Command()])
def test_no_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, HybridLM(CONFIG), 1, rng_state=attack)
    with suppress(ValueError):  # what is refused, or in whose place an inert object stands, is torch's affair
        load_pretrained(tmp_path)
    assert not (tmp_path / "attacked").exists()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model = HybridLM(CONFIG)
    write(tmp_path, model, 2)
    file = tmp_path / "release/mp_rank_01/model_optim_rng.pt"
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(file, weights_only=True)

    def message(**changes: Any) -> str:
        torch.save({**content, "model": {**content["model"], **changes}}, file)
        with pytest.raises(ValueError, match="mp_rank_01") as caught:
            load_pretrained(tmp_path)
        return str(caught.value)

    assert "decoder.final_norm.weight differs from rank 0's" in message(
        **{"decoder.final_norm.weight": torch.ones(64) * 2}
    )
    assert "shape (8,), expected (64,)" in message(**{"decoder.final_norm.weight": torch.ones(8)})
    assert "do not hold the same tensors" in message(extra=torch.ones(1))
    file.write_bytes(file.read_bytes()[:-200])
    assert "cannot be read" in message_of(tmp_path)
    file.unlink()
    assert f"{file} is missing" in message_of(tmp_path)
    file.parent.rmdir()
    (tmp_path / "release/mp_rank_00_001").mkdir()
    assert "are not the ranks" in message_of(tmp_path)


def message_of(folder: Path) -> str:
    with pytest.raises(ValueError, match=str(folder)) as caught:
        load_pretrained(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalization": "LayerNorm"}, "normalization is 'LayerNorm'"),
        ({"hybrid_override_pattern": "M-M*"}, "'M-M[*]', but the tensors' names say 'M-[*]M'"),
        ({"hybrid_override_pattern": None, "num_layers": 5}, "num_layers is 5, but the tensors' names say 4"),
        ({"mamba_state_dim": None}, "expected .*mamba_state_dim = 128 .* defaults of Megatron's code of 2024"),
        ({"pipeline_model_parallel_size": 2}, "pipeline_model_parallel_size is 2: only 1 is supported"),
        ({"apply_layernorm_1p": True}, "apply_layernorm_1p is True: only False is supported"),
        ({"layernorm_zero_centered_gamma": True}, "layernorm_zero_centered_gamma is True"),
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm is True"),
        ({"qk_layernorm": True}, "qk_layernorm is True"),
        ({"rotary_interleaved": True}, "rotary_interleaved is True"),
        ({"rotary_seq_len_interpolation_factor": 2}, "rotary_seq_len_interpolation_factor is 2: only 1 is supported"),
        ({"use_rope_scaling": True}, "use_rope_scaling is True"),
        ({"no_rope_freq": [0, 1]}, r"no_rope_freq is \[0, 1\]: only None is supported"),
        ({"softmax_scale": 0.5}, "softmax_scale is 0.5: only None is supported"),
        ({"softmax_type": "learnable"}, "softmax_type is 'learnable': only 'vanilla' is supported"),
        ({"window_size": (4, 0)}, r"window_size is \(4, 0\): only None is supported"),
        ({"multi_latent_attention": True}, "multi_latent_attention is True"),
        ({"quick_geglu": True}, "quick_geglu is True"),
        ({"openai_gelu": True}, "openai_gelu is True"),
        ({"num_experts": 8}, "num_experts is 8: only None is supported"),
        ({"use_mup": torch.ones(2)}, "use_mup is tensor"),
        ({"add_qkv_bias": True}, "add_qkv_bias is on without add_bias_linear"),
        ({"position_embedding_type": "learned_absolute"}, "'learned_absolute'"),
        ({"hidden_size": "64"}, "d_model is '64'"),
    ],
)
def test_other_functions_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    place = tmp_path / "mp_rank_00"
    place.mkdir()
    args = argparse.Namespace(**vars(args_of(CONFIG, 1)) | changes)
    torch.save({"model": rank_tensors(HybridLM(CONFIG), 0, 1), "args": args}, place / "model_optim_rng.pt")
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def test_what_leaves_the_function_as_it_is_is_taken(tmp_path: Path) -> None:
    """Defaults of Megatron's, and options of training."""
    off = ("apply_layernorm_1p", "qk_layernorm", "rotary_interleaved", "use_rope_scaling", "add_qkv_bias", "use_mup")
    none = ("softmax_scale", "window_size", "num_experts", "rope_type", "rotary_seq_len_interpolation_factor")
    more = dict.fromkeys(off, False) | dict.fromkeys(none)
    more |= {"softmax_type": "vanilla", "glu_linear_offset": 0.0, "attention_softmax_in_fp32": True, "clip_grad": 1.0}
    model = HybridLM(CONFIG)
    write(tmp_path, model, 2, args=argparse.Namespace(**vars(args_of(CONFIG, 2)) | more))
    assert torch.equal(load_pretrained(tmp_path).embedding.weight, model.embedding.weight)


def test_a_rank_that_is_not_there_is_told(tmp_path: Path) -> None:
    model = HybridLM(CONFIG)
    write(tmp_path, model, 4)
    for rank in (2, 3):
        shutil.rmtree(tmp_path / f"release/mp_rank_{rank:02d}")
    assert f"{tmp_path}/release: 2 of 4 ranks are here" in message_of(tmp_path)


def args_of_2024(config: HybridConfig, ranks: int) -> argparse.Namespace:
    """As the code of the technical report has them: ratios in place of the pattern, the mixer's sizes hard-wired."""
    args = vars(args_of(config, ranks))
    for name in ("mamba_state_dim", "mamba_head_dim", "mamba_num_groups"):
        del args[name]
    hybrid = set(config.layers) != {"M"}
    ratios = {"hybrid_attention_ratio": 0.08, "hybrid_mlp_ratio": 0.5} if hybrid else {}
    ratios = {"hybrid_attention_ratio": 0.0, "hybrid_mlp_ratio": 0.0} | ratios
    return argparse.Namespace(**args | {"hybrid_override_pattern": None} | ratios)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("pattern", ["MMM", "M-*M-M"])
def test_the_arguments_of_2024(pattern: str, ranks: int, tmp_path: Path) -> None:
    wide = {"d_model": 256, "d_state": 128, "headdim": 64, "n_groups": 8, "head_dim": None}
    config = dataclasses.replace(CONFIG, pattern=pattern, **wide)
    model = HybridLM(config)
    write(tmp_path, model, ranks, args=args_of_2024(config, ranks))
    loaded = load_pretrained(tmp_path)
    assert loaded.config.pattern == pattern
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_layers_that_are_not_told_apart_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "mp_rank_00"
    place.mkdir()
    whole = rank_tensors(HybridLM(CONFIG), 0, 1)
    both = whole | {"decoder.layers.1.mixer.D": torch.ones(1)}
    gap = {name: tensor for name, tensor in whole.items() if not name.startswith("decoder.layers.1.")}
    for tensors, kinds in ((both, r"\['-', 'M'\]"), (gap, r"\[\]")):
        torch.save({"model": tensors, "args": args_of(CONFIG, 1)}, place / "model_optim_rng.pt")
        with pytest.raises(ValueError, match=f"layer 1 has tensors of the kinds {kinds}"):
            load_pretrained(tmp_path)
