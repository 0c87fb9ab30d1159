"""The tables behind the plots: complete, the same bytes each time, and there for a kind that is not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.evaluate.report.data import Data
from pipeline.evaluate.report.funnel import Flow, Funnel
from pipeline.evaluate.report.histograms import Histogram, TokenCounts
from pipeline.evaluate.report.tables import rank_frequency, write_tables

DATA = Data(
    funnel=Funnel({"no_body": 4}, [Flow("documents", 9, {"duplicate": 1}, 0, {})], []),
    characters={"documents": Histogram(np.array([64, 90, 128]), np.array([2, 6]), sampled=False)},
    sequences={"documents": Histogram(np.array([1, 3, 5]), np.array([1, 2]), sampled=False)},
    tokens={"documents": TokenCounts(np.array([50, 30, 15, 4, 1]), sampled=False)},
)
METRICS = {"base": {"bits_per_byte": 2.0}, "finetuned": {"bits_per_byte": 1.5}, "unigram": {"bits_per_byte": 3.0}}
PLOTS = "artifacts/evaluate/plots"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_plot_of_dvc_yaml_has_its_table_and_columns(tmp_path):
    write_tables(tmp_path, METRICS, DATA)
    plots = yaml.safe_load((Path(__file__).parents[4] / "dvc.yaml").read_text())["plots"]
    named = {}
    for name, plot in (item for entry in plots for item in entry.items()):
        columns = plot["y"] if isinstance(plot["y"], dict) else {name: plot["y"]}
        named |= {path: {plot["x"], column} for path, column in columns.items() if path.startswith(PLOTS)}
    written = {f"{PLOTS}/{path.relative_to(tmp_path).as_posix()}": path for path in tmp_path.rglob("*.csv")}
    assert named.keys() == written.keys()
    for path, columns in named.items():
        with written[path].open(newline="") as file:
            assert columns <= set(next(csv.reader(file)))


def test_the_numbers_are_those_of_the_data(tmp_path):
    write_tables(tmp_path, METRICS, DATA)
    assert [row["share"] for row in read(tmp_path / "record_length/documents.csv")] == ["0.25", "0.75"]
    assert [row["tokens"] for row in read(tmp_path / "sequence_length/documents.csv")] == ["1", "3"]
    assert [row["rank"] for row in read(tmp_path / "token_frequency/documents.csv")] == ["1", "2", "3", "4", "5"]
    assert read(tmp_path / "bits_per_byte.csv")[0] == {"model": "base", "bits_per_byte": "2.0"}
    steps = [(row["step"], row["kind"], row["records"]) for row in read(tmp_path / "funnel.csv")]
    assert steps[0] == ("01 ingest, left out: no body", "", "4")
    assert steps[-1] == ("05 tokenize, packed into rows", "documents", "8")
    assert steps == sorted(steps)


def test_a_kind_that_is_not_there_has_a_header_and_no_rows(tmp_path):
    write_tables(tmp_path, METRICS, DATA)
    for figure in ("record_length", "sequence_length", "token_frequency"):
        assert len((tmp_path / figure / "conversations.csv").read_text().splitlines()) == 1
    assert len((tmp_path / "chrf.csv").read_text().splitlines()) == 1


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_tables(tmp_path / name, METRICS, DATA)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.csv"))
    assert len(files) == 10
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("kinds", [1, 2, 3, 100, 50_000])
def test_ranks_run_from_the_first_to_the_last_and_stay_few(kinds):
    ranks, shares = rank_frequency(TokenCounts(np.arange(kinds, 0, -1), sampled=False))
    assert ranks[0] == 1
    assert ranks[-1] == kinds
    assert (np.diff(ranks) > 0).all()
    assert len(ranks) < 80
    assert shares[0] == pytest.approx(2 / (kinds + 1))
