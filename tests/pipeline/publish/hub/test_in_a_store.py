"""A data set published from a store: what is there is what is on the Hub, and its record keeps what was stated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipeline.exit_status import ExitStatus
from pipeline.store import files
from pipeline.store.manifest import changed_files
from pipeline.store.places import expanded
from tests.hub_commits import CommitHub
from tests.hub_desk import Publisher, make_data_set
from tests.store_servers import BUCKET, s3_server

NOT_OURS = ("published.json", ".gitattributes")


@pytest.fixture
def far(served: tuple[CommitHub, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A publisher that reaches a store."""
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        own = environment | {"TMPDIR": str(tmp_path)}
        with Publisher(served[1], served[0].token, tmp_path / "home", own) as publisher:
            yield publisher


def test_what_is_in_the_bucket_is_published(far: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    folder, url = make_data_set(tmp_path / "job", licence=None), f"s3://{BUCKET}/sets/out"
    for name in files.files_below(folder):
        files.copy(folder / name, expanded(url) / name)
    files.copy(folder / "run.json", expanded(url) / "partial" / "run.json")

    said = far("publish", url, "--repo-id", "me/far")
    assert said.status == ExitStatus.BAD_INPUT and said.line.startswith(f"mpg: {url}: ") and "--license" in said.line
    said = far("publish", url, "--repo-id", "me/far", "--license", "mit")
    assert said.status == 0, said
    assert "read back" in said.out and "left out: partial/" in said.out and str(tmp_path) not in said.everything
    there = {path: each.content for path, each in hub.data_set("me/far").find("main").files.items()}
    here = {name: files.read_bytes(expanded(url) / name) for name in there if name not in NOT_OURS}
    assert {name: there[name] for name in here} == here and "data/train-00000-of-00001.parquet" in here
    assert (
        b"\nlicense: mit\n" in here["README.md"] and json.loads(here["run.json"])["stated_licence"]["license"] == "mit"
    )
    assert changed_files(expanded(url)) == {} and list(files.listing(expanded(url) / ".work")) == ["job-folder"]
    assert "nothing to do" in far("publish", url, "--repo-id", "me/far").out


def test_what_is_on_the_hub_is_read_there_and_not_written(
    publisher: Publisher, hub: CommitHub, data_set: Path, tmp_path: Path
) -> None:
    assert publisher("publish", data_set, "--repo-id", "me/read").status == 0
    url = "hf://datasets/me/read"
    assert publisher("verify", url, "--sample", "0").out == "files: all as they were written\n"
    assert publisher("report", url, "--terminal").out == publisher("report", data_set, "--terminal").out.replace(
        *(state_of(publisher("report", each, "--terminal").out) for each in (data_set, url))
    )
    judge = ("judge", url, "--attributes", "N")
    assert f"judgments: {tmp_path / 'judged' / 'judgments'}" in publisher(*judge, "--output", tmp_path / "judged").out
    for words in (judge, ("report", url)):
        said = publisher(*words)
        assert said.status == ExitStatus.BAD_INPUT and "hf:// can be read only" in said.line and "--output" in said.line
    said = publisher("publish", url, "--repo-id", "me/other", "--license", "mit")
    assert said.status == ExitStatus.BAD_INPUT and "hf:// can be read only" in said.line
    said = publisher("verify", "hf://datasets/me/none")
    assert said.status == ExitStatus.BAD_INPUT and said.line.startswith("mpg: hf://datasets/me/none: no such folder; ")


def state_of(report: str) -> str:
    """What names the state of the files in it."""
    (line,) = [line for line in report.splitlines() if line.startswith("state of its files")]
    return line.split()[-1]
