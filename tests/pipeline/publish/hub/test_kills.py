"""Killed at any moment and started again, it goes on: one commit at the end, and every file right."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_commits import CommitHub, Fault
from tests.hub_desk import ROOT, Publisher

# Where the process is killed: which request, whether before it is done, in the middle of it, or after, and the how
# manieth of its kind.
MOMENTS = {
    "before the repository is made": (r"POST /api/repos/create", "call", 0),
    "after it is made": (r"POST /api/repos/create", "lose", 0),
    "before the branch is looked at": (r"GET .*/refs", "call", 0),
    "before modes are asked for": (r"POST .*/preupload/", "call", 0),
    "in the first upload": (r"PUT /lfs/", "break", 0),
    "after the first upload": (r"PUT /lfs/", "lose", 0),
    "in the second upload": (r"PUT /lfs/", "break", 1),
    "when all is uploaded": (r"POST /api/validate-yaml", "call", 0),
    "in the commit": (r"POST .*/commit/", "break", 0),
    "after the commit": (r"POST .*/commit/", "lose", 0),
    "before the tag": (r"POST .*/tag/", "call", 0),
    "after the tag": (r"POST .*/tag/", "lose", 0),
    "while it is read back": (r"GET .*/resolve/.*/data/", "call", 0),
}
# Of those, one by one; the others are among the kills in a row, and one by one in the long series.
ALWAYS = ("after it is made", "in the second upload", "after the commit")
IN_A_ROW = [
    (r"POST /api/repos/create", "call"),
    (r"GET .*/refs", "call"),
    (r"POST .*/preupload/", "call"),
    (r"PUT /lfs/", "break"),
    (r"PUT /lfs/", "lose"),
    (r"GET /api/datasets/me/x$", "call"),
    (r"POST /api/validate-yaml", "call"),
    (r"POST .*/commit/", "break"),
    (r"POST .*/commit/", "lose"),
    (r"POST .*/tag/", "lose"),
    (r"GET .*/tree/", "call"),
]


class Victim:
    """``mpg publish`` in a process of its own, which a request of its own kills."""

    def __init__(self, publisher: Publisher, *words: str | Path) -> None:
        command = [sys.executable, "-m", "pipeline.cli", "publish", *map(str, words)]
        self._process = subprocess.Popen(
            command, env=publisher.environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def status(self) -> int:
        return self._process.wait(120)


@pytest.mark.parametrize(
    "moment", [pytest.param(each, marks=[] if each in ALWAYS else pytest.mark.long) for each in MOMENTS]
)
def test_killed_once_and_started_again(publisher: Publisher, hub: CommitHub, data_set: Path, moment: str) -> None:
    fits, how, after = MOMENTS[moment]
    words = (data_set, "--repo-id", "me/x", "--tag", "v1", "--gated")
    victims: list[Victim] = []
    hub.faults.append(Fault(fits, how=how, after=after, call=lambda: victims[0].kill()))
    victims.append(Victim(publisher, *words))
    assert victims[0].status == -signal.SIGKILL
    said = publisher("publish", *words)
    assert said.status == 0, said
    is_as_it_was_written(hub, data_set)


@pytest.mark.long
def test_killed_again_and_again(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    """One repository, and a kill a little further on each time."""
    words = (data_set, "--repo-id", "me/x", "--tag", "v1", "--gated")
    for fits, how in IN_A_ROW:
        victims: list[Victim] = []
        hub.faults[:] = [Fault(fits, how=how, call=lambda victims=victims: victims[0].kill())]  # type: ignore[misc]
        victims.append(Victim(publisher, *words))
        assert victims[0].status == -signal.SIGKILL, fits
    hub.faults.clear()
    assert publisher("publish", *words).status == 0
    is_as_it_was_written(hub, data_set)


def published(hub: CommitHub) -> list[tuple[str, bytes]]:
    files = hub.data_set("me/x").find("main").files
    return [(path, blob.content) for path, blob in files.items() if path != ".gitattributes"]


def is_as_it_was_written(hub: CommitHub, data_set: Path) -> None:
    repository = hub.data_set("me/x")
    assert len(repository.history()) == 1 and repository.gated == "auto"
    assert repository.tags == {"v1": repository.find("main").oid}
    files = dict(published(hub))
    here = {str(path.relative_to(data_set)) for path in data_set.rglob("*") if path.is_file()}
    assert set(files) - {"published.json"} == {name for name in here if not name.startswith(".work")}
    assert all((data_set / path).read_bytes() == files[path] for path in files if path != "published.json")
    large = sum(len(content) for path, content in files.items() if path.endswith(".parquet"))
    assert hub.received_large == large  # each once, however often it was begun
