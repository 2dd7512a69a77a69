"""Copies of what lies in stores take no more of a disk than they may, and none goes that somebody uses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.store import copies, files, kept
from pipeline.store.places import expanded
from tests.beam_servers import ROOT

HOLD = "import sys; from pathlib import Path; from pipeline.store.kept import hold; print(hold(Path(sys.argv[1])), flush=True); input()"  # noqa: E501


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where copies go; what this process has in use is let go of at the end."""
    monkeypatch.setattr(copies.tempfile, "tempdir", str(tmp_path))
    yield tmp_path / f"mpg-{os.getuid()}"
    let_go()


def copied(name: str, n_bytes: int = 1000) -> Path:
    """The folder of a copy of something in a store, of so many bytes."""
    files.write_bytes(os.urandom(n_bytes), expanded(f"memory://kept/{name}/weights"))
    return copies.here(expanded(f"memory://kept/{name}")).parent


def let_go() -> None:
    """As a process does that ends."""
    while kept._held:
        os.close(kept._held.popitem()[1])


def unused_for(copy: Path, seconds: float) -> None:
    """Nobody has used it, or the files in it, for so long."""
    then = time.time() - seconds
    for path in (copy / kept.MARK, *copy.rglob("weights")):
        os.utime(path, (then, then))


@contextmanager
def another_process_with(copy: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD, str(copy)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "True\n"
        yield
    finally:
        process.stdin.close()
        process.wait()


def test_what_nobody_has_used_for_days_goes_with_its_files(folder: Path) -> None:
    old, new = copied("old"), copied("new")
    let_go()
    unused_for(old, kept.KEPT_S + 60)
    unused_for(new, kept.KEPT_S - 3600)
    copied("third")
    assert not old.exists() and new.exists()
    assert len(list((folder / kept.FILES).iterdir())) == 2
    assert copied("old").exists()  # and is had again


def test_beyond_a_size_the_longest_unused_go_first(folder: Path) -> None:
    first, second, third = (copied(name, 100_000) for name in ("first", "second", "third"))
    let_go()
    for copy, hours in ((first, 3), (second, 5), (third, 4)):
        unused_for(copy, hours * 3600)
    kept.keep_within_bounds(folder, 250_000)
    assert [each.exists() for each in (first, second, third)] == [True, False, True]
    assert len(list((folder / kept.FILES).iterdir())) == 2
    kept.keep_within_bounds(folder, 0)
    assert not first.exists() and not third.exists() and not list((folder / kept.FILES).iterdir())


def test_none_goes_that_somebody_uses(folder: Path) -> None:
    mine, theirs = copied("mine"), copied("theirs")
    let_go()
    assert kept.hold(mine)
    with another_process_with(theirs):
        for copy in (mine, theirs):
            unused_for(copy, kept.KEPT_S + 60)
        kept.keep_within_bounds(folder, 0)
        assert (mine / "mine" / "weights").exists() and (theirs / "theirs" / "weights").exists()
    kept.keep_within_bounds(folder, 0)
    assert mine.exists() and not theirs.exists()


def test_a_copy_that_went_under_ones_hands_is_made_again(folder: Path) -> None:
    """Its mark was opened, and it was removed before the lock was had."""
    copy = copied("a")
    (copy / kept.MARK).rename(copy / "other")
    assert not kept.hold(copy)
    assert not kept.hold(folder / "nowhere")
    again = copied("a")
    assert (again / "a" / "weights").exists()


def test_a_copy_of_which_parts_were_taken_away_is_made_again(folder: Path) -> None:
    copy = copied("a")
    (copy / kept.MARK).unlink()
    assert copies.here(expanded("memory://kept/a")) == copy / "a"
    assert (copy / "a" / "weights").exists() and (copy / kept.MARK).exists()


def test_a_judges_cache_and_what_is_young_stay(folder: Path) -> None:
    copy, cache = copied("a"), copies.folder_here(expanded("memory://kept/out"))
    (cache / "judge-cache.sqlite").write_bytes(b"paid for")
    young, left, file = folder / "scratch-young", folder / "scratch-left", folder / kept.FILES / ("0" * 24)
    for each in (young, left):
        each.mkdir()
    file.write_bytes(b"about to be linked")
    os.utime(left, (0, 0))
    kept.keep_within_bounds(folder, 0)
    assert copy.exists() and (cache / "judge-cache.sqlite").exists() and young.exists() and file.exists()
    assert not left.exists()  # of a process that was killed
