"""A checkpoint takes the place of an older one of any format, or, where it cannot be written, leaves no trace."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
from model.checkpoints import FORMATS
from tests.model.checkpoints.test_trust import MODELS, files_of

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("first", "second"), itertools.product(FORMATS, FORMATS))
def test_an_older_checkpoint_is_replaced(first: str, second: str, tmp_path: Path) -> None:
    new = HybridLM(HybridConfig(**MODELS[second]))
    save_pretrained(HybridLM(HybridConfig(**MODELS[first])), tmp_path, format=first)
    (tmp_path / "notes.txt").write_text("mine")
    save_pretrained(new, tmp_path, format=second)
    loaded = load_pretrained(tmp_path)
    assert loaded.config.layers == new.config.layers
    for name, tensor in new.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert len(files_of(tmp_path)) == 3  # what is read, what tells how, and the notes
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_older_ranks_and_shards_go_too(tmp_path: Path) -> None:
    model = HybridLM(HybridConfig(**MODELS["megatron"]))
    save_pretrained(model, tmp_path, format="megatron")
    shutil.copytree(tmp_path / "release/mp_rank_00", tmp_path / "release/mp_rank_01")
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"old")
    save_pretrained(model, tmp_path, format="megatron")
    assert torch.equal(load_pretrained(tmp_path).norm.weight, model.norm.weight)
    assert len(files_of(tmp_path)) == 2


@pytest.mark.parametrize(("first", "second"), itertools.permutations(["native", "state-spaces", "megatron"], 2))
def test_an_interrupted_replacement_leaves_nothing_that_loads(
    first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever step: the older checkpoint is whole, or there is none."""
    old, new = (HybridLM(HybridConfig(**MODELS[format])) for format in (first, second))
    steps = itertools.count()
    for stop in steps:
        place = tmp_path / str(stop)
        save_pretrained(old, place, format=first)
        left = itertools.count(stop, -1)

        def interrupt(real: object, left: itertools.count[int] = left) -> object:
            def step(path: Path, *arguments: object, **options: object) -> object:
                if path.name.endswith(".partial") and real is UNLINK:  # the cleaning up
                    return real(path, *arguments, **options)
                if next(left) == 0:
                    raise KeyboardInterrupt
                return real(path, *arguments, **options)  # type: ignore[operator]

            return step

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", interrupt(UNLINK))
            patch.setattr(Path, "replace", interrupt(REPLACE))
            try:
                save_pretrained(new, place, format=second)
            except KeyboardInterrupt:
                pass
            else:
                break
        try:
            loaded = load_pretrained(place)
        except ValueError:
            pass
        else:
            assert torch.equal(loaded.embedding.weight, old.embedding.weight)
            assert loaded.config.layers == old.config.layers
        assert not list(place.rglob("*.partial"))
    assert stop >= 4


UNLINK, REPLACE = Path.unlink, Path.replace

FULL = """
import resource, signal, sys
from model import HybridConfig, HybridLM, save_pretrained
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = HybridLM(HybridConfig(pattern="MM", vocab_size=512, d_model=64, d_state=16, headdim=16, chunk_size=128))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_pretrained(model, sys.argv[1], format=sys.argv[2])
except OSError as error:
    print(error)
    print(error.__cause__ is not None)
"""


@pytest.mark.parametrize("format", ["native", "hf-mamba2", "state-spaces", "megatron"])
def test_a_full_disk_leaves_no_file_and_an_error_that_names_it(format: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), format], capture_output=True, text=True, cwd=ROOT, check=True
    )
    message, cause = done.stdout.strip().rsplit("\n", 1)
    assert "model" in message.partition(str(tmp_path))[2], message
    assert cause == "True"
    assert files_of(tmp_path) == []
