"""Shards: whole or not there, known by a manifest, set aside when they are not what was written."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.layout import write_dataset
from pipeline.store.manifest import changed_files, write_manifest
from pipeline.store.schema import JUDGMENTS
from pipeline.store.shards import MANIFEST, manifest_of, read_shards, write_rows


def judgment(row_id: str, score: float = 0.5) -> dict[str, Any]:
    base = {field.name: None for field in JUDGMENTS}
    return base | {"row_id": row_id, "attribute": "E", "judge": "j@1", "score": score, "status": "ok"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards of two rows."""
    folder = tmp_path / "judgments"
    folder.mkdir()
    for name in "abc":
        write_rows([judgment(f"{name}{i}") for i in range(2)], "judgments", folder / f"{name}.parquet")
    return folder


def ids(folder: Path) -> list[str]:
    return read_shards(folder, "judgments", ["row_id"]).column("row_id").to_pylist()


ALL = ["a0", "a1", "b0", "b1", "c0", "c1"]


def test_the_manifest_knows_rows_and_checksums(folder: Path) -> None:
    assert ids(folder) == ALL
    entries = manifest_of(folder)
    assert {name: entry["rows"] for name, entry in entries.items()} == {f"{name}.parquet": 2 for name in "abc"}
    assert {entry["bytes"] for entry in entries.values()} == {(folder / "a.parquet").stat().st_size}
    write_rows([judgment("a0", 0.25)], "judgments", folder / "a.parquet")  # made again: the last line counts
    assert manifest_of(folder)["a.parquet"]["rows"] == 1 and ids(folder) == ["a0", *ALL[2:]]


@pytest.mark.parametrize("damage", ["truncated", "a byte changed", "empty", "no Parquet"])
def test_a_damaged_shard_is_set_aside_and_never_deleted(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "b.parquet"
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "truncated": content[:-10],
        "a byte changed": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "no Parquet": b"x" * len(content),
    }[damage]
    for n in range(2):
        path.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            assert ids(folder) == ["a0", "a1", "c0", "c1"]
        aside = folder / ("b.corrupt" if n == 0 else "b.corrupt-1")
        assert aside.read_bytes() == damaged and not path.exists()
    assert "b.parquet" in caplog.text and "set aside" in caplog.text


def test_a_line_left_half_by_a_killed_writer_is_no_line(folder: Path) -> None:
    lines = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(lines + b'\n{"file": "d.parq')
    write_rows([judgment("d0")], "judgments", folder / "d.parquet")
    assert set(manifest_of(folder)) == {f"{name}.parquet" for name in "abcd"} and ids(folder) == [*ALL, "d0"]


def test_a_shard_whose_line_was_not_written_is_taken_up_if_it_is_sound(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    assert ids(folder) == ALL
    assert {entry["rows"] for entry in manifest_of(folder).values()} == {2}
    (folder / MANIFEST).unlink()
    content = bytearray((folder / "b.parquet").read_bytes())
    content[40] ^= 255  # within the first page: its own checksum tells
    (folder / "b.parquet").write_bytes(content)
    assert ids(folder) == ["a0", "a1", "c0", "c1"]


def test_a_data_sets_manifest_tells_what_has_changed(folder: Path, tmp_path: Path) -> None:
    table = read_shards(folder, "judgments")
    write_manifest(tmp_path, {"judgments": write_dataset(table, tmp_path / "judgments")})
    (file,) = json.loads((tmp_path / "manifest.json").read_text())
    assert file == "judgments/train-00000-of-00001.parquet"
    for path in [*folder.glob("[abc].parquet")]:
        path.unlink()
    assert changed_files(tmp_path) == {}
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[:-1])
    assert changed_files(tmp_path) == {file: f"not the {len(whole)} bytes that were written"}
    (tmp_path / file).rename(tmp_path / "judgments" / "other.parquet")
    assert changed_files(tmp_path) == {file: "missing", "judgments/other.parquet": "not in the manifest"}


def test_what_can_not_be_written_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    target = folder / "e.parquet"
    target.mkdir()  # a folder in its place: the last step fails
    with pytest.raises(OSError):
        write_rows([judgment("e0")], "judgments", target)
    target.rmdir()
    assert sorted(path.name for path in folder.iterdir()) == before
    with pytest.raises(FileNotFoundError):
        write_rows([judgment("e0")], "judgments", tmp_path / "gone" / "e.parquet")
