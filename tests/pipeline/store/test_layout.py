"""A table's files: sizes, row groups, pages, splits, and what stays as it was when a table grows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.store.layout import (
    CHUNKING,
    IsTest,
    Sizes,
    TableWriter,
    files_in,
    last_range,
    numbered,
    range_of,
    row_bits,
    which_are_test,
    write_dataset,
    write_range,
)

SMALL = Sizes(range_bytes=40_000, group_bytes=10_000)
# What the Hub's viewer reads at once, as a share of a group: it holds for the default sizes as it does for small ones.
VIEWER_BYTES = 300_000_000
VIEWER_ROWS = 100


def table(sizes: list[int], seed: int = 0) -> pa.Table:
    """Rows whose texts have so many random letters."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(97, 123, n, dtype=np.uint8).tobytes().decode() for n in sizes]
    rows = {
        "row_id": [hashlib.sha256(f"{i}{text[:9]}".encode()).hexdigest() for i, text in enumerate(texts)],
        "prompt": pa.array([[{"role": "user", "content": text[:20]}] for text in texts]),
        "weights": pa.array([[0.5] * (i % 3) for i in range(len(texts))], pa.list_(pa.float64())),
        "response": texts,
        "n": list(range(len(texts))),
    }
    return pa.table(rows, schema=pa.table(rows).schema.with_metadata({"mpg.table": "generations"}))


def odd(rows: pa.Table) -> pa.BooleanArray:
    return pc.equal(pc.bit_wise_and(rows.column("n"), 1), 1)


def ranges_of(given: pa.Table) -> list[tuple[int, pa.Table]]:
    """The ranges of a table by what each row takes, told of pieces of it that know what is before them alone."""
    bits = row_bits(given)
    last, found = last_range(int(bits.sum()), SMALL), dict[int, list[pa.Table]]()
    for first in range(0, given.num_rows, 31):
        of = range_of(bits[first : first + 31], int(bits[:first].sum()), SMALL)
        for i, index in enumerate(of, first):
            found.setdefault(min(int(index), last), []).append(given.slice(i, 1))
    return [(index, pa.concat_tables(rows)) for index, rows in found.items()]


def groups_of(path: Path) -> list[tuple[int, int]]:
    """(rows, bytes before compression) of each row group, as the viewer measures it."""
    footer = pq.read_metadata(path)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    return [(group.num_rows, group.total_byte_size) for group in groups]


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in files_in(folder)]


def test_rows_come_back_in_their_order_from_files_of_the_size_wanted(tmp_path: Path) -> None:
    given = table([300] * 1000)
    entries = write_dataset(given, tmp_path, sizes=SMALL)
    files = files_in(tmp_path)
    n = len(files)
    assert n > 5 and [path.name for path in files] == [f"train-{i:05d}-of-{n:05d}.parquet" for i in range(n)]
    assert pa.concat_tables(pq.read_table(path) for path in files).equals(given)
    for path, entry in zip(files, entries, strict=True):
        assert entry == {
            "file": path.name,
            "rows": pq.read_metadata(path).num_rows,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    sizes = [pq.read_table(path).nbytes for path in files]
    row = 1000
    assert all(0.9 * SMALL.range_bytes < size <= SMALL.range_bytes + row for size in sizes[:-1])  # balanced
    assert SMALL.range_bytes - row < sizes[-1] <= 2 * SMALL.range_bytes
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".parquet"]


def test_footers_are_as_the_hub_wants_them(tmp_path: Path) -> None:
    write_dataset(table([300] * 400), tmp_path, odd, SMALL)
    for path in files_in(tmp_path):
        footer = pq.read_metadata(path)
        for i in range(footer.num_row_groups):
            for column in (footer.row_group(i).column(j) for j in range(footer.num_columns)):
                assert column.compression == "ZSTD" and column.has_offset_index and column.has_column_index
        assert json.loads(footer.metadata[b"content_defined_chunking"]) == CHUNKING
        assert footer.metadata[b"mpg.table"] == b"generations"
        groups = groups_of(path)
        assert len(groups) > 1 and all(size <= SMALL.group_bytes for _, size in groups)


def test_the_sizes_that_ship_pass_the_viewer() -> None:
    sizes = Sizes()
    assert 2 * sizes.range_bytes <= 500_000_000
    assert 2 * sizes.group_bytes < VIEWER_BYTES  # a page of rows stands in two groups


@pytest.mark.parametrize(
    "sizes",
    [
        [10, 10, 5000, 10],
        [5000],
        [5000] * 7,
        [10] * 200 + [60_000] + [10] * 200,
        [60_000, 10, 10],
        [10, 10, 60_000],
        [10, 10, 200_000],
        [200_000, 10, 200_000, 10],
        [0] * 50,
        list(np.random.default_rng(1).pareto(1.0, 300).astype(int) * 100),
    ],
    ids=lambda sizes: f"{len(sizes)}-rows",
)
def test_rows_of_very_different_size(tmp_path: Path, sizes: list[int]) -> None:
    """A group holds what its bytes hold; a row that is larger stands alone, in its group and in its file."""
    given = table([int(size) for size in sizes])
    write_dataset(given, tmp_path, sizes=SMALL)
    files = files_in(tmp_path)
    assert pa.concat_tables(pq.read_table(path) for path in files).equals(given)
    for path in files:
        rows = pq.read_table(path)
        assert rows.num_rows == 1 or rows.nbytes <= 2 * SMALL.range_bytes
        first = 0
        for n, _ in groups_of(path):
            assert n == 1 or rows.slice(first, n).nbytes <= 1.01 * SMALL.group_bytes  # chunks that were read cost some
            first += n
    assert all(pq.read_metadata(path).num_rows for path in files)


def test_a_group_is_no_larger_in_its_file_than_in_memory(tmp_path: Path) -> None:
    """What is cut by is Arrow's memory, what the viewer measures are Parquet's bytes before compression."""
    sizes = Sizes(range_bytes=4_000_000, group_bytes=1_000_000)
    write_dataset(table([int(n) for n in np.random.default_rng(2).integers(0, 4000, 4000)]), tmp_path, odd, sizes)
    found = [size for path in files_in(tmp_path) for _, size in groups_of(path)]
    assert len(found) > 6 and max(found) <= 1_010_000


def test_each_range_writes_its_train_and_its_test_part(tmp_path: Path) -> None:
    given = table([300] * 1000)
    write_dataset(given, tmp_path, odd, SMALL)
    n = len(ranges_of(given))
    names = [f"{split}-{i:05d}-of-{n:05d}.parquet" for split in ("train", "test") for i in range(n)]
    assert [path.name for path in files_in(tmp_path)] == names
    read = pa.concat_tables(pq.read_table(path) for path in files_in(tmp_path))
    assert read.equals(pa.concat_tables([given.filter(pc.invert(odd(given))), given.filter(odd(given))]))
    assert read.column("n").to_pylist() == [*range(0, 1000, 2), *range(1, 1000, 2)]


def test_a_range_without_rows_of_a_split_has_no_part_there(tmp_path: Path) -> None:
    given = table([300] * 1000)
    write_dataset(given, tmp_path, lambda rows: pc.less(rows.column("n"), 3), SMALL)
    counts = [path.name[:5] for path in files_in(tmp_path)]
    assert counts.count("test-") == 1 and counts.count("train") == len(ranges_of(given))
    write_dataset(given, tmp_path / "all", lambda rows: pc.greater_equal(rows.column("n"), 0), SMALL)
    assert {path.name[:5] for path in files_in(tmp_path / "all")} == {"test-"}


def test_no_rows_have_no_file(tmp_path: Path) -> None:
    assert write_dataset(table([]), tmp_path, odd, SMALL) == [] and not list(tmp_path.iterdir())


def test_ranges_may_be_written_in_any_order_by_anybody(tmp_path: Path) -> None:
    given = table([300] * 1000)
    write_dataset(given, tmp_path / "at once", odd, SMALL)
    (tmp_path / "apart").mkdir()
    parts: dict[int, list[dict[str, dict[str, Any]]]] = {}
    for index, rows in reversed(ranges_of(given)):
        parts[index] = write_range(rows, tmp_path / "apart", str(index), which_are_test(rows, odd), SMALL)
    assert not list((tmp_path / "apart").glob("*.parquet"))  # nothing has its name before all are there
    numbered(tmp_path / "apart", [part for index in sorted(parts) for part in parts[index]])
    assert contents(tmp_path / "apart") == contents(tmp_path / "at once")


def test_cuts_do_not_depend_on_a_tables_chunks(tmp_path: Path) -> None:
    given = table([300] * 1000)
    write_dataset(given, tmp_path / "one", odd, SMALL)
    write_dataset(pa.concat_tables(given.slice(i, 7) for i in range(0, 1000, 7)), tmp_path / "many", odd, SMALL)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_a_table_that_grows_at_its_end_keeps_its_files(tmp_path: Path) -> None:
    whole = table([int(n) for n in np.random.default_rng(3).integers(0, 900, 1500)])
    for n in (700, 1100, 1500):
        write_dataset(whole.slice(0, n), tmp_path / str(n), odd, SMALL)
    before: list[bytes] = []
    for n in (700, 1100, 1500):
        now = contents(tmp_path / str(n))
        n_train = sum(path.name.startswith("train") for path in files_in(tmp_path / str(n)))
        kept = [*before[: max(0, len(before) // 2 - 1)], *before[len(before) // 2 : -1]]  # all but the last of each
        assert set(kept) <= set(now) and len(now) == 2 * n_train > len(before)
        before = now
    assert len(before) > 12


def test_a_row_put_into_the_middle_leaves_most_pages_as_they_were(tmp_path: Path) -> None:
    """Content-defined chunking at work; without it every page behind the row is another one."""
    given = table([4000] * 2500)
    changed = pa.concat_tables([given.slice(0, 900), table([3000], seed=9), given.slice(900)]).combine_chunks()
    write_dataset(given, tmp_path / "before")
    write_dataset(changed, tmp_path / "after")
    pq.write_table(given, tmp_path / "plain before.parquet", compression="zstd", write_page_index=True)
    pq.write_table(changed, tmp_path / "plain after.parquet", compression="zstd", write_page_index=True)
    (one,), (other,) = contents(tmp_path / "before"), contents(tmp_path / "after")
    plain, plain_other = ((tmp_path / f"plain {which}.parquet").read_bytes() for which in ("before", "after"))
    assert shared(one, other) > 0.8 > 0.5 > shared(plain, plain_other)


def shared(one: bytes, other: bytes, size: int = 4096) -> float:
    """Share of one file's pieces of so many bytes that stand somewhere in the other."""
    pieces = [one[i : i + size] for i in range(0, len(one) - size, size)]
    return sum(piece in other for piece in pieces) / len(pieces)


def test_a_part_that_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    def broken(rows: pa.Table) -> pa.BooleanArray:
        (tmp_path / "part-00000-00000-test.tmp").mkdir()  # in the place of the second part
        return odd(rows)

    with pytest.raises(OSError):
        write_dataset(table([300] * 10), tmp_path, broken, SMALL)
    assert not list(tmp_path.glob("*.parquet"))


def test_pandas_and_duckdb_read_both_splits(tmp_path: Path) -> None:
    import duckdb
    import pandas as pd

    given = table([300] * 1000)
    write_dataset(given, tmp_path, odd, SMALL)
    read = pd.concat(pd.read_parquet(path) for path in files_in(tmp_path))
    assert sorted(read["n"]) == list(range(1000)) and read["prompt"].iloc[0][0]["role"] == "user"
    count = "select count(*), sum(n), count(distinct row_id) from read_parquet(?)"
    assert duckdb.execute(count, [str(tmp_path / "test-*.parquet")]).fetchone() == (500, sum(range(1, 1000, 2)), 500)
    assert duckdb.execute(
        "select prompt[1].role from read_parquet(?) limit 1", [str(tmp_path / "*.parquet")]
    ).fetchone()


@pytest.mark.parametrize("is_test", [odd, None])
@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_a_table_handed_over_piece_by_piece_has_the_files_of_the_whole(
    tmp_path: Path, size: int, is_test: IsTest | None
) -> None:
    large = [90_000, 250_000]  # the last of a piece, at times: nothing waits behind it
    given = table([int(n) for n in np.random.default_rng(4).integers(0, 3000, 700)] + large)
    write_dataset(given, tmp_path / "whole", is_test, SMALL)
    writer, most = TableWriter(tmp_path / "pieces", SMALL), 0
    for first in range(0, given.num_rows, size):
        writer.add(given.slice(first, size), is_test)
        most = max(most, sum(rows.num_rows for rows, _, _ in writer._waiting))
    writer.close()
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "whole")) > 12 and most < 200


def test_what_a_row_takes_is_known_whatever_rows_stand_beside_it() -> None:
    given = table([int(n) for n in np.random.default_rng(5).integers(0, 900, 300)])
    alone = np.concatenate([row_bits(given.slice(i, 1)) for i in range(300)])
    assert (row_bits(given) == alone).all()
    assert alone.sum() / 8 == pytest.approx(given.nbytes, rel=0.02)
