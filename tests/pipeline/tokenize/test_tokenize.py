"""The stage against oracles: every record is found again in the rows, and every byte is the same on a second run."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.chat.template import template_for
from pipeline.chat.tokenizer import Tokenizer, load_tokenizer
from pipeline.params import TOKEN_FORMATS, LongConversations, LongDocuments, TokenizeParams
from pipeline.rows import CONTEXT, NEVER, RESPONSE, open_rows
from pipeline.shards import Local, verify_manifest, write_manifest
from pipeline.shards.tables import SPLITS, columns, shard_file, write_table
from pipeline.tokenize.bpe import train_bpe
from pipeline.tokenize.formats.megatron import open_megatron
from pipeline.tokenize.run import tokenize
from pipeline.work import WorkFolder

WORDS = ["the ", " cat", "\n", "    ", "return", " x=1", "naïve", "🙂", "<|end|>", "<|endoftext|>"]
PARAMS = TokenizeParams(
    tokenizer="embedded",
    vocab_size=300,
    chat_template="embedded",
    fast=False,
    seqlen=32,
    long_documents=LongDocuments.split,
    long_conversations=LongConversations.truncate,
    formats=["rows"],
    seed=0,
)

FILES = {
    "input_ids.npy": "rows",
    "loss_mask.npy": "rows",
    "seq_idx.npy": "rows",
    "packed.idx.parquet": "rows",
    "tokens.bin": "records_out",
    "tokens.idx": "records_out",
    "tokens.jsonl": "records_out",
    "tokens.parquet": "records_out",
}
"""What a kind and split has in all formats, and the figure that says how many records it holds."""

SOURCES = ("web", "a,\nb", "code")
"""Of the records of a shard, by turns."""

SHORT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

Clean = dict[str, dict[str, list[list[Any]]]]
"""By kind and split: shards of documents (str) or conversations (messages)."""


def text(rng: random.Random, longest: int) -> str:
    return "".join(rng.choices(WORDS, k=rng.randint(1, longest)))


def conversation(rng: random.Random) -> list[dict[str, str]]:
    roles = ["user", "assistant"] * rng.randint(1, 2)
    return [{"role": role, "content": text(rng, 8)} for role in roles]


def random_clean(seed: int = 0) -> Clean:
    rng = random.Random(seed)
    sizes = {"train": [20, 1, 30], "validation": [5], "test": [4, 4]}
    make = {"documents": lambda: text(rng, 60), "conversations": lambda: conversation(rng)}
    return {
        kind: {split: [[record() for _ in range(size)] for size in shards] for split, shards in sizes.items()}
        for kind, record in make.items()
    }


def write_clean(directory: Path, clean: Clean, first: int = 0) -> Path:
    """What preprocess would publish, the shards numbered from `first` on."""
    records = {}
    for kind, splits in clean.items():
        for split, shards in splits.items():
            for index, shard in enumerate(shards):
                name = f"{split}/{shard_file(kind, first + index)}"
                (directory / split).mkdir(parents=True, exist_ok=True)
                ids = [f"{kind}:{split}:{index}:{number}" for number in range(len(shard))]
                sources = [SOURCES[number % 3] for number in range(len(shard))]
                schema = columns(kind, split=False)
                values = dict(zip(schema, (ids, sources, ids, shard), strict=True))
                write_table(pl.DataFrame(values, schema=schema), directory / name)
                records[name] = len(shard)
    write_manifest(directory, records, {})
    return directory


def run(
    tmp_path: Path, clean: Clean, params: TokenizeParams = PARAMS, first: int = 0, **options: Any
) -> tuple[Path, dict[str, Any]]:
    """The published directory and its verified manifest."""
    work = WorkFolder(tmp_path / "work")
    tokenize(
        write_clean(tmp_path / "clean", clean, first),
        work,
        params,
        **({"checkpoint": "embedded", "executor": Local(1)} | options),
    )
    assert {path.name for path in work.out.parent.iterdir()} == {"out"}
    return work.out, verify_manifest(work.out)


def sequences(directory: Path) -> list[tuple[list[int], list[int]]]:
    """(ids, mask) of every sequence in the rows that has a target, by a walk over single tokens."""
    rows = open_rows(directory)
    found = []
    for ids, mask, idx in zip(rows.input_ids.tolist(), rows.loss_mask.tolist(), rows.seq_idx.tolist(), strict=True):
        assert idx[0] == 0
        assert all(later - earlier in (0, 1) for earlier, later in pairwise(idx))
        for number in range(idx[-1] + 1):
            where = [position for position, value in enumerate(idx) if value == number]
            piece = [ids[position] for position in where], [mask[position] for position in where]
            assert piece[1][0] == NEVER
            if any(piece[1]):
                found.append(piece)
    return found


def flat(shards: list[list[Any]]) -> list[Any]:
    return [record for shard in shards for record in shard]


def document_ids(tokenizer: Tokenizer, documents: list[str]) -> list[list[int]]:
    return [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in tokenizer.encode(documents)]


@pytest.mark.parametrize("seqlen", [8, 13, 32, 500])
def test_each_document_is_in_the_rows_once(tmp_path: Path, seqlen: int) -> None:
    clean = random_clean(seqlen)
    tokens, manifest = run(tmp_path, clean, replace(PARAMS, seqlen=seqlen))
    tokenizer = load_tokenizer(tokens / "tokenizer")
    for split, shards in clean["documents"].items():
        figures = manifest["documents"][split]
        expected = document_ids(tokenizer, flat(shards))
        rows = open_rows(tokens / "documents" / split)
        targets = rows.input_ids[rows.loss_mask == RESPONSE].tolist()  # in the order of the rows
        found, at = [], 0
        for end in [position + 1 for position, token in enumerate(targets) if token == tokenizer.eos_id]:
            found.append([tokenizer.bos_id, *targets[at:end]])
            at = end
        assert at == len(targets)
        if split == "train":
            assert found != expected
            found, expected = sorted(found), sorted(expected)
        assert found == expected
        assert (
            np.count_nonzero(rows.loss_mask == RESPONSE)
            == figures["supervised_tokens"]
            == sum(len(ids) - 1 for ids in expected)
        )
        assert figures["bytes"] == sum(len(document.encode()) for document in flat(shards))
        assert figures["records_out"] == figures["records_in"] == len(expected)
        assert figures["rows"] == len(rows)
        assert figures["tokens"] > (len(rows) - 1) * seqlen  # only the last row has padding


@pytest.mark.parametrize("seqlen", [16, 32, 64])
@pytest.mark.parametrize("policy", LongConversations)
def test_each_conversation_is_in_the_rows_once(tmp_path: Path, seqlen: int, policy: LongConversations) -> None:
    clean = random_clean(seqlen)
    tokens, manifest = run(tmp_path, clean, replace(PARAMS, seqlen=seqlen, long_conversations=policy))
    template = template_for(load_tokenizer(tokens / "tokenizer"))
    for split, shards in clean["conversations"].items():
        expected, dropped, truncated = [], 0, 0
        for messages in flat(shards):
            ids, answer = template.encode(messages)
            mask = np.where(answer, RESPONSE, CONTEXT)
            mask[0] = NEVER
            whole = len(ids) <= seqlen
            if not whole and (policy is LongConversations.drop or not answer[:seqlen].any()):
                dropped += 1
                continue
            truncated += not whole
            expected.append((ids[:seqlen].tolist(), mask[:seqlen].tolist()))
        figures = manifest["conversations"][split]
        assert sorted(sequences(tokens / "conversations" / split)) == sorted(expected)
        assert sum(figures["dropped"].values()) == dropped == figures["records_in"] - len(expected)
        assert list(figures["dropped"]) == ["too_long" if policy is LongConversations.drop else "prompt_too_long"]
        assert figures["truncated"] == truncated
        assert figures["sequences"] == figures["records_out"] == len(expected)
        assert figures["supervised_tokens"] == sum(mask.count(RESPONSE) for _, mask in expected)


@pytest.mark.parametrize("seqlen", [16, 32])
@pytest.mark.parametrize("policy", LongConversations)
def test_each_source_has_the_records_bytes_and_tokens_of_its_records(
    tmp_path: Path, seqlen: int, policy: LongConversations
) -> None:
    clean = random_clean(seqlen)
    tokens, manifest = run(tmp_path, clean, replace(PARAMS, seqlen=seqlen, long_conversations=policy))
    tokenizer = load_tokenizer(tokens / "tokenizer")
    template = template_for(tokenizer)
    expected: dict[tuple[str, str, str], list[int]] = {}

    def add(kind: str, split: str, number: int, text: str, length: int) -> None:
        figures = expected.setdefault((kind, split, SOURCES[number % 3]), [0, 0, 0])
        for place, value in enumerate((1, len(text.encode()), length)):
            figures[place] += value

    for split in SPLITS:
        for shard in clean["documents"][split]:
            for number, document in enumerate(shard):
                add("documents", split, number, document, len(document_ids(tokenizer, [document])[0]))
        for shard in clean["conversations"][split]:
            for number, messages in enumerate(shard):
                ids, answer = template.encode(messages)
                if len(ids) > seqlen and (policy is LongConversations.drop or not answer[:seqlen].any()):
                    continue
                said = "".join(message["content"] for message in messages)
                add("conversations", split, number, said, min(len(ids), seqlen))
    table = pl.read_csv(tokens / "statistics/sources.csv")
    assert table.columns == ["kind", "split", "source", "records", "bytes", "tokens"]
    assert {tuple(row[:3]): list(row[3:]) for row in table.iter_rows()} == expected
    assert table.height == len(expected) == manifest["files"]["statistics/sources.csv"]["records"]
    of_split = table.group_by("kind", "split").agg(pl.col("records", "bytes", "tokens").sum())
    for kind, split, records, size, held in of_split.iter_rows():
        figures = manifest[kind][split]
        repeated = figures["sequences"] - figures["records_out"]  # tokens before a cut are in two rows
        assert (records, size, held) == (figures["records_out"], figures["bytes"], figures["tokens"] - repeated)


def test_held_out_rows_keep_the_order_of_the_records(tmp_path: Path) -> None:
    tokens, _ = run(tmp_path, random_clean())
    firsts = {}
    for split in ("train", "test"):
        template = template_for(load_tokenizer(tokens / "tokenizer"))
        order = [
            template.encode(messages)[0][:32].tolist() for messages in flat(random_clean()["conversations"][split])
        ]
        rows = open_rows(tokens / "conversations" / split)
        starts = [ids[idx == 0].tolist() for ids, idx in zip(rows.input_ids, rows.seq_idx, strict=True)]
        firsts[split] = [order.index(ids) for ids in starts]
    assert firsts["test"] == sorted(firsts["test"])
    assert firsts["train"] != sorted(firsts["train"])


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = [run(tmp_path / str(first), random_clean(), first=first)[1]["files"] for first in (0, 99_999)]
    assert found[0] == found[1]


def test_long_documents_can_be_dropped(tmp_path: Path) -> None:
    clean = random_clean()
    tokens, manifest = run(tmp_path, clean, replace(PARAMS, seqlen=64, long_documents=LongDocuments.drop))
    tokenizer = load_tokenizer(tokens / "tokenizer")
    documents = flat(clean["documents"]["train"])
    kept = [
        (ids, text) for ids, text in zip(document_ids(tokenizer, documents), documents, strict=True) if len(ids) <= 64
    ]
    figures = manifest["documents"]["train"]
    assert 0 < len(kept) < len(documents)
    assert sorted(ids for ids, _ in sequences(tokens / "documents" / "train")) == sorted(ids for ids, _ in kept)
    assert figures["dropped"] == {"too_long": len(documents) - len(kept)}
    assert figures["bytes"] == sum(len(text.encode()) for _, text in kept)


def test_same_inputs_same_bytes_for_any_workers_and_directory(tmp_path: Path) -> None:
    found = []
    for name, workers in (("one", 1), ("two", 2), ("elsewhere/three", 3)):
        params = replace(PARAMS, formats=list(TOKEN_FORMATS))
        target, _ = run(tmp_path / name, random_clean(), params, executor=Local(workers))
        found.append({str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()})
    assert found[0] == found[1] == found[2]


def test_the_seed_moves_training_rows_only(tmp_path: Path) -> None:
    (one, _), (two, _) = (run(tmp_path / str(seed), random_clean(), replace(PARAMS, seed=seed)) for seed in (0, 1))
    for kind in ("documents", "conversations"):
        same = {
            split: (one / kind / split / "input_ids.npy").read_bytes()
            == (two / kind / split / "input_ids.npy").read_bytes()
            for split in ("train", "validation", "test")
        }
        assert same == {"train": False, "validation": True, "test": True}


def records_of(directory: Path) -> dict[str, list[list[int]]]:
    """The ids of each record, by the format they are read from."""
    indexed = open_megatron(directory / "tokens")
    return {
        "megatron": [indexed[number].tolist() for number in range(len(indexed))],
        "parquet": pl.read_parquet(directory / "tokens.parquet")["input_ids"].to_list(),
        "jsonl": [json.loads(line)["input_ids"] for line in (directory / "tokens.jsonl").open()],
    }


@pytest.mark.parametrize("tokens_at_a_time", [1, 100, 1 << 20])
def test_every_format_has_the_records_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens_at_a_time: int
) -> None:
    monkeypatch.setattr("pipeline.tokenize.pack.TOKENS_AT_A_TIME", tokens_at_a_time)
    clean = random_clean()
    tokens, manifest = run(tmp_path, clean, replace(PARAMS, formats=list(TOKEN_FORMATS)))
    tokenizer = load_tokenizer(tokens / "tokenizer")
    for split in ("train", "validation", "test"):
        documents, conversations = tokens / "documents" / split, tokens / "conversations" / split
        whole = document_ids(tokenizer, flat(clean["documents"][split]))
        assert all(found == whole for found in records_of(documents).values())
        fitted = sorted(ids for ids, _ in sequences(conversations))
        assert all(sorted(found) == fitted for found in records_of(conversations).values())
        for directory in (documents, conversations):
            rows, figures = open_rows(directory), manifest[directory.parent.name][split]
            table = pl.read_parquet(directory / "tokens.parquet")
            assert [json.loads(line) for line in (directory / "tokens.jsonl").open()] == table.to_dicts()
            assert table["text_bytes"].sum() == figures["bytes"]
            marks = [mark for marks in table["loss_mask"].to_list() for mark in marks]
            assert marks.count(RESPONSE) == figures["supervised_tokens"] == (rows.loss_mask == RESPONSE).sum()
            packed = pl.read_parquet(directory / "packed.idx.parquet")
            learned = [row["input_ids"][at + 1] for row in packed.to_dicts() for at in np.flatnonzero(row["loss_mask"])]
            assert learned == rows.input_ids[rows.loss_mask == RESPONSE].tolist()
            counted = {name: manifest["files"][f"{directory.parent.name}/{split}/{name}"]["records"] for name in FILES}
            assert counted == {name: figures[count] for name, count in FILES.items()}


@pytest.mark.parametrize("drop", [False, True])
def test_blocks_of_records_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drop: bool) -> None:
    long = {"long_documents": LongDocuments.drop, "long_conversations": LongConversations.drop} if drop else {}
    params = replace(PARAMS, formats=list(TOKEN_FORMATS), **long)
    monkeypatch.setattr("pipeline.tokenize.pack.TOKENS_AT_A_TIME", 100)
    _, whole = run(tmp_path / "whole", random_clean(), params)
    monkeypatch.setattr("pipeline.mapped.BLOCK", 7)
    monkeypatch.setattr("pipeline.tokenize.statistics.RECORDS_AT_A_TIME", 21)
    _, blocks = run(tmp_path / "blocks", random_clean(), params)
    assert blocks == whole


def test_the_formats_do_not_change_the_rows(tmp_path: Path) -> None:
    (one, _), (all_, manifest) = (
        run(tmp_path / str(len(formats)), random_clean(), replace(PARAMS, formats=list(formats)))
        for formats in (["rows"], TOKEN_FORMATS)
    )
    for file in one.rglob("*.npy"):
        assert file.read_bytes() == (all_ / file.relative_to(one)).read_bytes()
    assert len(manifest["files"]) == 1 + 6 * len(FILES) + 1


@pytest.mark.parametrize("seqlen", [8, 24, 100])
@pytest.mark.parametrize(
    ("documents", "conversations"),
    [(LongDocuments.split, LongConversations.truncate), (LongDocuments.drop, LongConversations.drop)],
)
def test_no_record_is_lost_without_a_word(
    tmp_path: Path, seqlen: int, documents: LongDocuments, conversations: LongConversations
) -> None:
    rng = random.Random(seqlen)
    clean: Clean = {
        "documents": {split: [["a", *(text(rng, 60) for _ in range(9))] for _ in range(2)] for split in SPLITS},
        "conversations": {
            split: [[SHORT, *(conversation(rng) for _ in range(9))] for _ in range(2)] for split in SPLITS
        },
    }
    params = replace(PARAMS, seqlen=seqlen, long_documents=documents, long_conversations=conversations)
    tokens, manifest = run(tmp_path, clean, params)
    for kind, splits in clean.items():
        for split, shards in splits.items():
            figures = manifest[kind][split]
            assert figures["records_in"] == len(flat(shards))
            assert figures["records_in"] == figures["records_out"] + sum(figures["dropped"].values())
            rows = open_rows(tokens / kind / split)
            ends = rows.input_ids[rows.loss_mask == RESPONSE] == manifest["tokenizer"]["eos_id"]
            found = ends.sum() if kind == "documents" else len(sequences(tokens / kind / split))
            assert figures["records_out"] == found > 0
            assert figures["efficiency"] == round(figures["tokens"] / (len(rows) * seqlen), 4)
            assert figures["efficiency"] <= figures["efficiency_bound"] <= 1


def test_one_kind_only(tmp_path: Path) -> None:
    tokens, manifest = run(tmp_path, {"conversations": {"train": random_clean()["conversations"]["train"]}})
    assert sorted(path.name for path in tokens.iterdir()) == [
        "conversations",
        "manifest.json",
        "statistics",
        "tokenizer",
    ]
    assert [path.name for path in (tokens / "conversations").iterdir()] == ["train"]
    assert "documents" not in manifest


def test_a_split_of_which_nothing_is_kept_is_an_error(tmp_path: Path) -> None:
    clean: Clean = {"documents": {"train": [["a b"] * 9], "test": [["x" * 99]]}}
    message = failing(tmp_path, clean, replace(PARAMS, long_documents=LongDocuments.drop))
    assert "none of the 1 documents for test fits into a row; raise it or set tokenize.long_documents" in message


def test_a_given_tokenizer_travels_along(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    train_bpe(["abc abc"], 265).save(str(given / "tokenizer.json"))
    (given / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    for name, tokenizer, checkpoint in (
        ("file", str(given / "tokenizer.json"), "embedded"),
        ("directory", str(given), "somewhere"),
        ("checkpoint", "embedded", str(given)),
    ):
        tokens, manifest = run(
            tmp_path / name, random_clean(), replace(PARAMS, tokenizer=tokenizer), checkpoint=checkpoint
        )
        for file in given.iterdir():
            assert (tokens / "tokenizer" / file.name).read_bytes() == file.read_bytes()
        assert manifest["tokenizer"]["eos_id"] == 4


def failing(tmp_path: Path, clean: Clean, params: TokenizeParams = PARAMS, checkpoint: str = "embedded") -> str:
    """The message of the ValueError; no output, half-written or whole, is there."""
    work = WorkFolder(tmp_path / "work")
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the callers match the message
        tokenize(write_clean(tmp_path / "clean", clean), work, params, checkpoint=checkpoint, executor=Local(1))
    assert not work.out.parent.exists() or not list(work.out.parent.iterdir())
    return str(caught.value)


def test_no_training_records(tmp_path: Path) -> None:
    message = failing(tmp_path, {"documents": {"test": [["some text"]], "train": [[]]}})
    assert "there is no training record" in message
    assert "preprocess.validation_fraction" in message


def test_every_training_record_dropped(tmp_path: Path) -> None:
    params = replace(PARAMS, seqlen=8, long_documents=LongDocuments.drop)
    message = failing(tmp_path, {"documents": {"train": [["no word comes twice 12345"]]}}, params)
    assert message.startswith("tokenize.seqlen is 8: none of the 1 documents for train fits into a row")


def test_a_checkpoint_without_a_tokenizer(tmp_path: Path) -> None:
    message = failing(tmp_path, random_clean(), checkpoint=str(tmp_path))
    assert message.startswith(f"model.checkpoint: {tmp_path} has no tokenizer.json; set tokenize.tokenizer")


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "no such tokenizer file"), ("{", "not a valid tokenizer.json")]
)
def test_an_unusable_tokenizer(tmp_path: Path, content: str | None, problem: str) -> None:
    given = tmp_path / "given"
    given.mkdir()
    if content:
        (given / "tokenizer.json").write_text(content)
    message = failing(tmp_path, random_clean(), replace(PARAMS, tokenizer=str(given)))
    assert message.startswith(f"tokenize.tokenizer: {given / 'tokenizer.json'}: {problem}")


@pytest.mark.parametrize(("is_there", "problem"), [(True, "differs from manifest.json"), (False, "is missing")])
def test_a_shard_that_is_not_as_preprocess_left_it_is_refused(tmp_path: Path, is_there: bool, problem: str) -> None:
    clean = write_clean(tmp_path / "clean", random_clean())
    shard = sorted(clean.glob("train/documents-*.parquet"))[0]
    pl.read_parquet(shard)[1:].write_parquet(shard) if is_there else shard.unlink()
    work = WorkFolder(tmp_path / "work")
    with pytest.raises(ValueError, match=rf"{shard.name} {problem}: remove .* and run `dvc repro`"):
        tokenize(clean, work, PARAMS, checkpoint="embedded", executor=Local(2))


def test_preprocess_has_not_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"clean/manifest\.json is missing|manifest\.json is missing"):
        tokenize(tmp_path / "clean", WorkFolder(tmp_path / "work"), PARAMS, checkpoint="embedded", executor=Local(1))
    assert not list(tmp_path.iterdir())
