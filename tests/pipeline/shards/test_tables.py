"""Tables put together from parts."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.shards import tables
from pipeline.shards.tables import join_tables, write_table


@pytest.mark.parametrize("sizes", [[0], [3], [5, 0, 7, 1, 14, 14], [100, 1]])
def test_joined_parts_are_the_bytes_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    monkeypatch.setitem(tables._PARQUET, "row_group_size", 7)
    schema = pl.Schema({"id": pl.String(), "detail": pl.String(), "count": pl.Int64()})
    parts, paths = [], []
    for index, size in enumerate(sizes):
        rows = [(f"[{index}]:{row}", None if row % 3 else f"detail {row * index}", row) for row in range(size)]
        parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
        paths.append(tmp_path / f"[{index}].parquet")
        write_table(parts[-1], paths[-1])
    write_table(pl.concat(parts), tmp_path / "whole.parquet")
    join_tables(paths, tmp_path / "joined.parquet")
    assert (tmp_path / "joined.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
