"""The embedded corpus as the repository's recipe and lock define it."""

import ast
from pathlib import Path

import pytest

from pipeline.ingest.embedded import embedded_pieces, read_recipe
from pipeline.ingest.pieces import Bounds, LeftOut, Record

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "embedded" / "corpus.yaml"
LOCK = ROOT / "requirements.lock"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    bounds = Bounds(record_bytes=10**9, expansion=1)
    outcomes = [outcome for piece in embedded_pieces(RECIPE, LOCK) for outcome in piece.read(bounds)]
    assert {type(outcome) for outcome in outcomes} == {Record, LeftOut}
    return [outcome for outcome in outcomes if isinstance(outcome, Record)]


def test_the_corpus_is_large_enough(records: list[Record]) -> None:
    documents = [record.content for record in records if isinstance(record.content, str)]
    assert sum(map(len, documents)) > 18_000_000
    assert len(records) - len(documents) >= 5_000
    assert len({record.id for record in records}) == len(records)


def test_tests_are_left_out(records: list[Record]) -> None:
    parts = {part for record in records for part in record.group.split("/")}
    assert not parts & {"tests", "benchmarks", "testing", "conftest.py"}
    assert {"sympy", "networkx"} <= parts


def test_a_pair_is_code_and_the_words_taken_from_it(records: list[Record]) -> None:
    limits = read_recipe(RECIPE).limits
    documents = {record.group: record.content for record in records if isinstance(record.content, str)}
    for record in records:
        if isinstance(record.content, str):
            continue
        user, assistant = record.content
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert assistant["content"] not in user["content"]
        assert len(user["content"]) <= limits.max_code_chars
        assert len(assistant["content"]) <= limits.max_summary_chars
        assert len(assistant["content"].split()) >= limits.min_summary_words
        module = documents[record.group]
        assert isinstance(module, str)
        assert user["content"].split("\n")[0] in module


def test_the_code_of_pairs_still_parses(records: list[Record]) -> None:
    for record in records[::20]:
        if isinstance(record.content, list):
            function = ast.parse(record.content[0]["content"]).body[0]
            assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            assert ast.get_docstring(function) is None


def test_a_package_must_be_the_one_that_the_lock_pins(tmp_path: Path) -> None:
    recipe, lock = tmp_path / "corpus.yaml", tmp_path / "lock"
    recipe.write_text(RECIPE.read_text())
    lock.write_text(LOCK.read_text().replace("sympy==", "sympy==0."))
    with pytest.raises(ValueError, match=r"needs sympy 0\..* is installed: run `pip install -r .*lock`"):
        embedded_pieces(recipe, lock)
    lock.write_text("")
    with pytest.raises(ValueError, match=r"needs sympy, but .*lock does not pin it"):
        embedded_pieces(recipe, lock)
    recipe.write_text(RECIPE.read_text().replace("- sympy", "- no-such-package"))
    lock.write_text("no-such-package==1.0\n")
    with pytest.raises(ValueError, match=r"needs no-such-package 1\.0.*it is not installed"):
        embedded_pieces(recipe, lock)


def test_a_malformed_recipe_is_an_error(tmp_path: Path) -> None:
    recipe = tmp_path / "corpus.yaml"
    recipe.write_text(RECIPE.read_text().replace("max_code_chars", "max_chars"))
    with pytest.raises(ValueError, match=r"corpus\.yaml must have exactly the fields .*max_code_chars"):
        read_recipe(recipe)
