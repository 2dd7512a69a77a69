"""A data set is the old one or the new one: killed at any step of the exchange, the next command finishes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.store.exchange import exchange, finish_any_exchange, next_files

OLD = {
    "README.md": "old",
    "data/train-00000-of-00002.parquet": "old 0",
    "data/train-00001-of-00002.parquet": "old 1",
    "rejected/train-00000-of-00001.parquet": "old dead",
    "run.json": "old run",
    "manifest.json": "old manifest",
    "mine.txt": "nobody's business",
}
NEW = {
    ".work/job-folder": "/here",
    "README.md": "new",
    "data/train-00000-of-00001.parquet": "new 0",
    "judgments/train-00000-of-00001.parquet": "new scores",
    "run.json": "new run",
    "manifest.json": "new manifest",
}
FOLDERS = ("data", "judgments", "rejected")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock" and path.name != "gathering"]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


class Killed(BaseException):
    pass


def killed_after(n_moves: int):
    left = n_moves

    def replace(source: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        os.replace(source, target)

    return replace


def test_a_killed_command_before_the_journal_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    write(next_files(tmp_path), {"data/train-00000-of-00001.parquet": "half"})
    finish_any_exchange(tmp_path)
    found = {name: text for name, text in read(tmp_path).items() if not name.startswith(".work")}
    assert found == OLD
    assert not any(next_files(tmp_path).iterdir())  # the next command begins anew


@pytest.mark.parametrize("n_moves", range(len(NEW) + 1))
def test_killed_at_any_step_the_next_command_finishes(tmp_path: Path, n_moves: int) -> None:
    write(tmp_path, OLD)
    write(next_files(tmp_path), NEW)
    try:
        exchange(tmp_path, FOLDERS, replace=killed_after(n_moves))
    except Killed:
        assert (tmp_path / "manifest.json").read_text() == "old manifest"  # it comes last
        finish_any_exchange(tmp_path)
    assert read(tmp_path) == NEW | {"mine.txt": "nobody's business"}
    assert not (tmp_path / "rejected").exists()  # no folder for no rows
    finish_any_exchange(tmp_path)  # nothing to do, and no lock needed
    assert read(tmp_path) == NEW | {"mine.txt": "nobody's business"}


def test_only_the_folders_that_are_named_lose_files(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    write(next_files(tmp_path), {"judgments/train-00000-of-00001.parquet": "scores", "manifest.json": "m"})
    exchange(tmp_path, ["judgments"])
    scores = {"judgments/train-00000-of-00001.parquet": "scores", "manifest.json": "m"}
    assert read(tmp_path) == OLD | scores
