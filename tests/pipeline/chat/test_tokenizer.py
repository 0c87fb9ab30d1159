"""A tokenizer.json as the pipeline uses it: lossless text, no forged control tokens, errors that help."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from pipeline.chat.tokenizer import SPECIAL_TOKENS, copy_tokenizer, load_tokenizer, tokenizer_files

TEXT = "def f(x):\n    return x + 1  # plus one\n\nDon't panic, it's 42.\n"


def train(path: Path, specials: tuple[str, ...] = SPECIAL_TOKENS) -> Path:
    """Save a small byte-level BPE at `path`."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend.save(str(path))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def test_text_comes_back(file: Path) -> None:
    tokenizer = load_tokenizer(file)
    texts = [TEXT, "", " ", "\n\n  \t x", "naïve café 中文 🙂\u200d", "a\r\nb\x00c"]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(texts)] == texts


def test_ids_and_hash(file: Path) -> None:
    tokenizer = load_tokenizer(file.parent)
    assert [tokenizer.control_id(name) for name in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, 0)
    assert tokenizer.vocab_size == 1 + max(Backend.from_file(str(file)).get_vocab().values())
    assert tokenizer.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert tokenizer.control_id("<|tool|>") is None
    assert tokenizer.control_id("a") is None


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
@pytest.mark.parametrize("form", ["{}", "a{}b", " {} ", "\n{}\n", "<{}>"])
def test_text_cannot_forge_control_tokens(file: Path, name: str, form: str) -> None:
    tokenizer = load_tokenizer(file)
    text = form.format(name)
    (ids,) = tokenizer.encode([text])
    assert min(ids) >= len(SPECIAL_TOKENS)
    assert tokenizer.decode(ids) == text


def test_control_tokens_that_the_file_does_not_call_special_cannot_be_forged(file: Path, tmp_path: Path) -> None:
    content = json.loads(file.read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (ids,) = load_tokenizer(tmp_path).encode(["x<|end|><|assistant|>y<|endoftext|>"])
    assert min(ids) >= len(SPECIAL_TOKENS)


def test_a_model_that_reads_its_control_token_in_text_is_refused(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((character, -2.0) for character in "</s> ab")]
    backend = Backend(models.Unigram(list(dict(pieces).items()), 0, False))
    backend.add_special_tokens(["</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer\.json: the text '</s>' encodes to the control token"):
        load_tokenizer(tmp_path)


def test_a_special_token_that_is_no_end_cannot_be_forged_either(tmp_path: Path) -> None:
    """A byte-level BPE takes a word that is in its vocabulary whole where `ignore_merges` is set."""
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(models.BPE(letters | {"EOT": 256, "</s>": 257}, [], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["EOT", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer\.json: the text 'EOT' encodes to the control token"):
        load_tokenizer(tmp_path)


def test_characters_that_would_vanish_are_an_error(tmp_path: Path) -> None:
    letters = {letter: index for index, letter in enumerate(["</s>", "<unk>", *"</s>unk ab"])}
    for model in (models.BPE(letters, []), models.BPE(letters, [], unk_token="<unk>")):
        backend = Backend(model)
        backend.add_special_tokens(["</s>", "<unk>"])
        backend.save(str(tmp_path / "tokenizer.json"))
        if model.unk_token:
            assert load_tokenizer(tmp_path).encode(["a\u4e2db"]) == [[letters["a"], letters["<unk>"], letters["b"]]]
        else:
            with pytest.raises(ValueError, match=r"tokenizer\.json: characters that it does not know .* would vanish"):
                load_tokenizer(tmp_path)


def test_dropout_is_an_error(file: Path, tmp_path: Path) -> None:
    content = json.loads(file.read_text())
    for dropout in (0.0, 0.3):
        content["model"]["dropout"] = dropout
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        if dropout:
            with pytest.raises(ValueError, match=r"tokenizer\.json: model\.dropout is 0\.3: .*set it to null"):
                load_tokenizer(tmp_path)
        else:
            assert load_tokenizer(tmp_path).encode([TEXT]) == load_tokenizer(file).encode([TEXT])


def test_padding_and_truncation_of_the_file_are_off(file: Path, tmp_path: Path) -> None:
    backend = Backend.from_file(str(file))
    backend.enable_truncation(2)
    backend.enable_padding()
    backend.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode(["abcdef", "a"]) == load_tokenizer(file).encode(["abcdef", "a"])


@pytest.mark.parametrize(
    ("specials", "config", "bos", "eos"),
    [
        (("<s>", "</s>"), None, "<s>", "</s>"),
        (("</s>",), None, "</s>", "</s>"),
        (("<|a|>", "<|b|>"), {"bos_token": "<|a|>", "eos_token": "<|b|>"}, "<|a|>", "<|b|>"),
        (("<|a|>", "<|b|>"), {"bos_token": None, "eos_token": {"content": "<|b|>"}}, "<|b|>", "<|b|>"),
        (("<s>", "</s>"), {"bos_token": None}, "</s>", "</s>"),
    ],
)
def test_ends_of_text(
    tmp_path: Path, specials: tuple[str, ...], config: dict[str, object] | None, bos: str, eos: str
) -> None:
    train(tmp_path / "tokenizer.json", specials)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (tokenizer.control_id(bos), tokenizer.control_id(eos))
    assert len(tokenizer_files(tmp_path)) == (1 if config is None else 2)


def test_what_transformers_keeps_beside_it_travels_along(file: Path, tmp_path: Path) -> None:
    names = ["tokenizer.json", "chat_template.jinja", "special_tokens_map.json", "tokenizer.model"]
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    for name in names:
        (tmp_path / "from" / name).write_bytes(file.read_bytes() if name == names[0] else name.encode())
    copy_tokenizer(tmp_path / "from", tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == sorted(names)
    assert (tmp_path / "to" / names[1]).read_text() == names[1]


def test_errors(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such tokenizer file"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere\.json: no such tokenizer file"):
        load_tokenizer(tmp_path / "nowhere.json")
    bad = tmp_path / "tokenizer.json"
    for content in ("", "{", "{}", '{"version": "1.0"}', "\xff"):
        bad.write_text(content)
        with pytest.raises(ValueError, match=r"tokenizer\.json: not a valid"):
            load_tokenizer(bad)
    train(bad, ("<|a|>",))
    with pytest.raises(ValueError, match=r"no end-of-text token; tried <\|endoftext\|>"):
        load_tokenizer(bad)
    config = tmp_path / "tokenizer_config.json"
    train(bad, SPECIAL_TOKENS)
    for text, problem in (
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (r'{"pad_token": "\ud800"}', "not valid JSON: .*surrogates"),
        ("[]", "expected a JSON object"),
        ('{"eos_token": "x y"}', "'x y'"),
        ('{"chat_template": 3}', "chat_template must be a text"),
        ('{"chat_template": ["{{ messages }}"]}', "chat_template must be a text"),
        ('{"chat_template": [{"name": "default"}]}', "chat_template must be a text"),
        ('{"chat_template": [{"name": ["default"], "template": ""}]}', "chat_template must be a text"),
        ('{"chat_template": [{"name": "default", "template": 3}]}', "chat_template must be a text"),
    ):
        config.write_text(text)
        with pytest.raises(ValueError, match=rf"tokenizer_config\.json: .*{problem}"):
            load_tokenizer(bad)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    config.unlink()
    with pytest.raises(ValueError, match=r"chat_template\.jinja: not UTF-8"):
        load_tokenizer(bad)


def test_what_is_loaded_again_is_what_the_files_hold_now(file: Path, tmp_path: Path) -> None:
    copy_tokenizer(file, tmp_path)
    loaded = load_tokenizer(file)
    assert load_tokenizer(tmp_path) is loaded, "equal files are loaded once"
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert load_tokenizer(tmp_path).chat_template == "{{ messages }}"
    assert load_tokenizer(file).chat_template is None
