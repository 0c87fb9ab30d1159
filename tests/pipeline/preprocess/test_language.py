"""Languages by a fastText model, written here by hand."""

import struct
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.preprocess import language
from pipeline.preprocess.fasttext_file import check_model
from pipeline.preprocess.language import identify

SUPERVISED, SOFTMAX, SKIPGRAM = 3, 3, 2


def quantised(path: Path, dense: Path, *, has_norms: bool) -> Path:
    """The model `dense` with a made-up quantised input matrix in its layout: 3 rows, 5 codes, quantisers of 2 and 1
    dimensions; the output stays as it is."""
    quantiser = [struct.pack("<4i", size, 1, 1, 1) + b"q" * (4 * 256 * size) for size in (2, 1)]
    norms = b"nnn" + quantiser[1] if has_norms else b""
    matrix = struct.pack("<??qqi", True, has_norms, 3, 2, 5) + b"ccccc" + quantiser[0] + norms
    output = struct.calcsize("<?qq") + 4 * 2 * 2  # of two labels, at the end
    before = struct.calcsize("<?qq") + 4 * 2 * 2  # the input, of two words
    data = dense.read_bytes()
    path.write_bytes(data[: -output - before] + matrix + data[-output:])
    return path


def write_model(path: Path, words: dict[str, str], *, kind: int = SUPERVISED) -> Path:
    """A model that scores the language of each known word with 10 and the others with 0.

    fastText's binary format, version 12: arguments, dictionary, input matrix, output matrix.
    """
    labels = sorted(set(words.values()))
    entries = [(word, 0) for word in words] + [(f"__label__{label}", 1) for label in labels]
    parts = [struct.pack("<ii", 793712314, 12)]
    parts.append(struct.pack("<12id", len(labels), 5, 1, 1, 5, 1, SOFTMAX, kind, 0, 0, 0, 100, 1e-4))
    parts.append(struct.pack("<iiiqq", len(entries), len(words), len(labels), len(entries), -1))
    parts += [word.encode() + b"\0" + struct.pack("<qb", 1, is_label) for word, is_label in entries]
    vectors = 10 * np.array([[label == of for label in labels] for of in words.values()], dtype="<f4")
    for matrix in (vectors, np.eye(len(labels), dtype="<f4")):
        parts.append(struct.pack("<?qq", False, *matrix.shape) + matrix.tobytes())
    path.write_bytes(b"".join(parts))
    return path


def test_the_likeliest_language_and_its_probability(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    model = write_model(tmp_path / "lid.bin", {"the": "en", "and": "en", "der": "de", "und": "de", "le": "fr"})
    texts = ["the cat\nand the dog", "der Hund und\tdie Katze", "le und le", "nothing known", "", " \n"]
    found = identify(pl.Series(texts), model)
    assert found["language"].to_list() == ["en", "de", "fr", None, None, None]
    hidden = np.array([[0, 10, 0], [10, 0, 0], [10 / 3, 0, 20 / 3]])  # the mean of the known words' vectors
    expected = (np.exp(hidden) / np.exp(hidden).sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose(found["language_score"][:3], expected, rtol=1e-4)
    assert found["language_score"][3:].to_list() == [None] * 3
    assert identify(pl.Series([], dtype=pl.String), model).schema == found.schema


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    path = tmp_path / "lid.bin"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"lid\.bin: not a fastText model"):
        identify(pl.Series(["a"]), path)
    path = write_model(tmp_path / "words.bin", {"a": "en"}, kind=SKIPGRAM)
    with pytest.raises(ValueError, match=r"words\.bin: .* supervised"):
        identify(pl.Series(["a"]), path)


@pytest.mark.parametrize("form", ["dense", "quantised", "with norms"])
def test_a_model_that_is_cut_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    """Of which the library makes zeros, or dies."""
    path = write_model(tmp_path / "lid.bin", {"the": "en", "der": "de"})
    if form != "dense":
        path = quantised(tmp_path / "lid.ftz", path, has_norms=form == "with norms")
    whole = path.read_bytes()
    check_model(path)
    cuts = range(len(whole)) if form == "dense" else range(0, len(whole), 7)
    for size in cuts:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"lid\.(bin|ftz): not a fastText model, or cut short"):
            check_model(path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fasttext", None)
    language._load.cache_clear()
    with pytest.raises(ValueError, match=r"pip install fasttext-predict"):
        identify(pl.Series(["a"]), tmp_path / "lid.bin")
