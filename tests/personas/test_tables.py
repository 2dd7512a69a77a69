"""The one reader of tables: every format and compression reads the same, and each bad row has its place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from personas.errors import TableError
from personas.tables import Row, id_text, is_table, read_table, whole

ROWS = [{"a": "001", "b": 'x, "y"\nz'}, {"a": "10:30", "b": None}, {"a": "NA", "b": "José"}]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


def csv_of(delimiter: str) -> bytes:
    lines = [f'{row["a"]}{delimiter}"{(row["b"] or "").replace(chr(34), chr(34) * 2)}"' for row in ROWS]
    return "\r\n".join([f"a{delimiter}b", *lines]).encode()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


FORMATS = {
    ".jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    ".ndjson": b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, ROWS)).encode(),
    ".json": json.dumps(ROWS, ensure_ascii=False).encode(),
    ".JSON": json.dumps({"data": ROWS}).encode("utf-16"),
    ".csv": csv_of(","),
    ".tsv": csv_of("\t"),
    ".parquet": parquet(),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_reads_the_same(tmp_path: Path, suffix: str, packed: str) -> None:
    path = tmp_path / f"p[1]*{suffix}{packed}"
    path.write_bytes(PACKED[packed](FORMATS[suffix]))
    (tmp_path / f"p1x{suffix}{packed}").write_bytes(b"another file, which a pattern would find")
    assert is_table(path)
    columns, rows = whole(read_table(path))
    assert columns == ("a", "b") and [dict(row.values) for row in rows] == ROWS
    if packed:
        path.write_bytes(PACKED[packed](FORMATS[suffix] * 9)[:-9])
        with pytest.raises(TableError, match=r"is no (gz|bz2|xz|zst|\.parquet) "):
            list(read_table(path).rows)
        path.write_bytes(b"something else")
        with pytest.raises(TableError, match=r"is no (gz|bz2|xz|zst|\.parquet) "):
            list(read_table(path).rows)


def rows_of(path: Path, content: bytes, **options: Any) -> list[Row]:
    path.write_bytes(content)
    return list(read_table(path, **options).rows)


def test_a_bad_line_of_json_costs_itself(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b"", b'{"a": ', b"[1]", b'{"a": "\xfc"}', b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"a": 2}']
    rows = rows_of(tmp_path / "a.jsonl", b"\n".join([*lines, b"1" * 5000]))
    assert [(row.place, row.problem is None) for row in rows] == [
        (f"line {n}", n in (1, 8)) for n in (1, 3, 4, 5, 6, 7, 8, 9)
    ]
    said = [row.problem for row in rows if row.problem is not None]
    assert said[0] == "not JSON (Expecting value at column 7); write one object a line"
    assert said[1].startswith("a list in place of an object")
    assert said[2] == "not UTF-8 at byte 8 (0xfc); save the file as UTF-8, or name its encoding"
    assert said[3] == "'a' is given twice; keep one" and said[4] == "nested too deeply"
    assert rows[3].raw == '{"a": "\\xfc"}' and len(rows[5].raw) == 2000


def test_a_bad_row_of_csv_costs_itself(tmp_path: Path) -> None:
    content = b'a,b\n1,2\n\n"x\ny",3\n4\n5,6,7\n"p"q,8\n\xff,9\n,\n10,"11"\n'
    rows = rows_of(tmp_path / "a.csv", content)
    assert [row.place for row in rows] == [f"line {n}" for n in (2, 4, 6, 7, 8, 9, 10, 11)]
    assert [dict(row.values) for row in rows if row.problem is None] == [
        {"a": "1", "b": "2"}, {"a": "x\ny", "b": "3"}, {"a": None, "b": None}, {"a": "10", "b": "11"},
    ]  # fmt: skip
    said = [(row.problem, row.raw) for row in rows if row.problem is not None]
    assert [raw for _, raw in said] == ["4\n", "5,6,7\n", '"p"q,8\n', "\\xff,9\n"]
    starts = (
        "1 cell under 2 columns; ",
        "3 cells under 2",
        "',' expected after '\"'; put",
        "not UTF-8 at byte 1 (0xff)",
    )
    assert all(problem.startswith(start) for (problem, _), start in zip(said, starts, strict=True))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b'a,b\n1,2\n3,"4\n5,6\n', "line 3: a quotation mark is opened there and not closed; close it"),
        ("a.csv", b'a\n"1\n2\n', "line 2: a quotation mark is opened there and not closed"),
        ("a.csv", b"", "is empty; its first line names the columns"),
        ("a.csv", b"\n\n", "is empty"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1: column 'a' stands twice; rename one"),
        ("a.csv", b"a;b\n1;2\n", "line 1: its columns seem to be separated by ';'"),
        ("a.csv", "a\n1\n".encode("utf-16-le"), "holds zero bytes: UTF-16 without its mark?"),
        ("a.csv", "José\n1\n".encode("latin-1"), r"line 1: not UTF-8 at byte 4 \(0xe9\); save the file as UTF-8"),
        (
            "a.csv",
            "a\n1\n".encode("utf-16")[:-1],
            r"is no text in utf-16-le .*; name its encoding, or save it as UTF-8",
        ),
        ("a.json", b'[{"a": 1},\nx]', "line 2: not JSON .* at column 1"),
        ("a.json", b'[{"a": "\xe9"}]', "not UTF-8 at byte 9"),
        ("a.parquet", b"a,b", "is no .parquet table"),
        ("a.txt", b"a", "is no table by its name; give one of .jsonl, "),
        ("a.gz", b"a", "is no table by its name"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(TableError, match=says) as caught:
        rows_of(tmp_path / name, content)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)


def test_files_that_are_not_there_and_folders(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match="is a directory"):
        read_table(tmp_path / "folder.csv")
    table = pa.table([[1], [2]], names=["a", "a"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(TableError, match="column 'a' stands twice"):
        read_table(tmp_path / "twice.parquet")


def test_encodings_by_name_and_by_mark(tmp_path: Path) -> None:
    text = "a,b\nJosé,ü\n"
    for encoding, named in (
        ("latin-1", "latin-1"),
        ("utf-16-le", "utf-16-le"),
        ("utf-8-sig", "utf-8"),
        ("utf-32", None),
    ):
        (row,) = rows_of(tmp_path / "a.csv", text.encode(encoding), encoding=named)
        assert row.values == {"a": "José", "b": "ü"}


def test_json_of_every_shape(tmp_path: Path) -> None:
    for content in (b'{"a": 1}\n{"a": 2}\n', b'[{"a": 1}, {"a": 2}]', b'{"rows": [{"a": 1}, {"a": 2}]}'):
        assert [row.values for row in rows_of(tmp_path / "a.json", content)] == [{"a": 1}, {"a": 2}]
    (row,) = rows_of(tmp_path / "a.json", b'{"messages": [{"role": "user", "content": "x"}]}')
    assert list(row.values) == ["messages"]
    good, bad = rows_of(tmp_path / "a.json", b'[{"a": 1}, null]')
    assert (bad.place, bad.raw, good.problem) == ("row 2", "null", None)


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    """What stands behind the last row that is wanted may be anything."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n" + b"1\n" * 100_000 + b'"')
    table = read_table(path)
    assert next(table.rows).values == {"a": "1"}
    with pytest.raises(TableError, match="line 100002"):
        list(table.rows)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7.0, "7"), (1.5, "1.5"), ("007", "007"), (2**70, str(2**70)), (None, None), ("  ", None)],
)
def test_ids(value: object, text: str | None) -> None:
    assert id_text(value) == text


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, b"x"])
def test_what_is_no_id(value: object) -> None:
    with pytest.raises(ValueError, match="is no id"):
        id_text(value)
