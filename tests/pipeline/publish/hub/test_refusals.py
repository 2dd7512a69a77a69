"""What is not published: one line with the remedy, a status of the table, and nothing made on the Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.exit_status import ExitStatus
from pipeline.store.lock import FolderLock
from tests.hub_commits import CommitHub
from tests.hub_desk import Publisher, make_data_set


def ended(folder: Path, **how: object) -> None:
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"ended": {"complete": False, "why": "the deadline", **how}}))


def shorter(folder: Path) -> None:
    path = folder / "data" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def outside(folder: Path) -> None:
    files = json.loads((folder / "manifest.json").read_text())
    (folder.parent / "x").write_bytes(b"")
    entry = {"rows": 0, "bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    (folder / "manifest.json").write_text(json.dumps(files | {"../x": entry}))


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (lambda d: (d / "run.json").unlink(), "its run has not ended; run the job again"),
    "an unfinished run": (ended, "its run has not ended (the deadline); run the job again"),
    "a record that is none": (lambda d: (d / "run.json").write_text("["), "run.json: can't be read"),
    "a file cut short": (shorter, "not as it was written (data/train-00000-of-00001.parquet: not the "),
    "a file gone": (
        lambda d: (d / "judgments" / "train-00000-of-00001.parquet").unlink(),
        "judgments/train-00000-of-00001.parquet: missing",
    ),
    "a file too many": (
        lambda d: (d / "data" / "train-00001-of-00002.parquet").write_bytes(b""),
        "train-00001-of-00002.parquet: not in the manifest",
    ),
    "a manifest that is none": (lambda d: (d / "manifest.json").write_text("[]"), "its manifest.json can't be read"),
    "a manifest that leads outside": (outside, "'../x' is no file of a data set"),
    "a job that is none": (lambda d: (d / "job.json").write_text('{"name": 1}'), "job.json: can't be read"),
    "no card": (lambda d: (d / "README.md").unlink(), "README.md: no such file"),
    "a card with nothing above it": (lambda d: (d / "README.md").write_text("# x\n"), "nothing stands above it"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_that_is_not_ready(publisher: Publisher, hub: CommitHub, data_set: Path, what: str) -> None:
    spoil, words = FOLDERS[what]
    spoil(data_set)
    for more in ((), ("--dry-run",)):
        said = publisher("publish", data_set, "--repo-id", "me/x", *more)
        assert said.status == ExitStatus.BAD_INPUT and words in said.line, said
    assert not hub.repositories and hub.asked == []


def test_no_licence(publisher: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    folder = make_data_set(tmp_path / "job", licence=None)
    for more in ((), ("--dry-run",)):
        said = publisher("publish", folder, "--repo-id", "me/x", *more)
        assert said.status == ExitStatus.BAD_INPUT and "mpg publish --license" in said.line, said
        assert ("job.json" in said.out) == bool(more), said  # a dry run lists what there is all the same
    assert hub.asked == []


def test_no_data_set(publisher: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, words in {"nowhere": "no such folder", "other": "holds no data set", "file": "is a file"}.items():
        said = publisher("publish", tmp_path / name, "--repo-id", "me/x")
        assert said.status == ExitStatus.BAD_INPUT and f"{name}: {words}" in said.line, said


def test_a_folder_in_use(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    with FolderLock(data_set / ".work"):
        said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == ExitStatus.TRY_AGAIN and f"in use by another process (host {os.uname().nodename}" in said.line
    assert publisher("publish", data_set, "--repo-id", "me/x").status == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--repo-id: where to publish is missing; give OWNER/NAME"),
        (("--repo-id", "name"), "--repo-id name: whose it is is missing"),
        (("--repo-id", "me/"), "--repo-id me/: whose it is is missing"),
        (("--repo-id", "me/a b"), "--repo-id me/a b: no id of a repository"),
        (("--repo-id", "me/a--b"), "--repo-id me/a--b: no id of a repository"),
        (("--repo-id", "a/b/c"), "--repo-id a/b/c: no id of a repository"),
        (("--repo-id", "datasets/me/x"), "give the id alone, as OWNER/NAME"),
        (("--repo-id", "https://u:pass1234@huggingface.co/datasets/me/x"), "give the id alone, as OWNER/NAME"),
        (("--repo-id", "me/x", "--revision", "a..b"), "--revision a..b: git takes no such name"),
        (("--repo-id", "me/x", "--revision", "a" * 40), "is the name of a commit"),
        (("--repo-id", "me/x", "--tag", "v 1"), "--tag v 1: git takes no such name"),
        (("--repo-id", "me/x", "--tag", "refs/tags/v1"), "give the tags own name"),
        (("--repo-id", "me/x", "--tag", "v1", "--create-pr"), "a pull request is not published yet"),
        (("--repo-id", "me/x", "--message", "by hf_abcdefghijklmnopqrst0123456789pass1234"), "looks like a key"),
    ],
)
def test_names_that_are_none(
    publisher: Publisher, hub: CommitHub, data_set: Path, options: tuple[str, ...], words: str
) -> None:
    said = publisher("publish", data_set, *options)
    assert said.status == ExitStatus.BAD_INPUT and words in said.line.replace("'", ""), said
    assert hub.asked == [] and "pass1234" not in said.everything


def test_another_kind_of_repository(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    hub.make("me/model", "model")
    said = publisher("publish", data_set, "--repo-id", "me/model")
    assert said.status == ExitStatus.BAD_INPUT and "me/model: is a model on the Hub; give another name" in said.line
    hub.make("me/model")  # as the remedy says
    assert publisher("publish", data_set, "--repo-id", "me/model").status == 0


def test_a_partial_data_set_is_left_out_and_said(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    partial = make_data_set(data_set.parent / "later", 2)
    ended(partial)
    partial.rename(data_set / "partial")
    said = publisher("publish", data_set / "partial", "--repo-id", "me/x")
    assert said.status == ExitStatus.BAD_INPUT and "its run has not ended" in said.line
    said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == 0 and "note: left out: partial/" in said.out
    assert not [path for path in hub.data_set("me/x").find("main").files if "partial" in path]


def test_what_is_no_part_of_the_data_set_is_left_out_and_said(
    publisher: Publisher, hub: CommitHub, data_set: Path
) -> None:
    for name in ("report.html", "notes.txt", "data/.hidden.parquet.1.tmp", ".env", "figures/plot.png", "figures/x.py",
                 "LICENSE", "LICENCE.txt", "NOTICE", "COPYING.md", "README.md~", "x/deep/er.csv"):  # fmt: skip
        (data_set / name).parent.mkdir(parents=True, exist_ok=True)
        (data_set / name).write_text("x")
    (data_set.parent / "secret").write_text("x")
    (data_set / "figures" / "link.png").symlink_to(data_set.parent / "secret")
    said = publisher("publish", data_set, "--dry-run", "--json")
    done = json.loads(said.out)
    terms = {"LICENSE", "LICENCE.txt", "NOTICE", "COPYING.md"}
    assert {*terms, "figures/plot.png", "README.md"} < set(done["files"])
    left_out = ["figures/link.png", "figures/x.py", "notes.txt", "report.html", "x/deep/er.csv"]
    assert done["left_out"] == left_out and set(done["files"]).isdisjoint([*left_out, ".env", "README.md~"])


def test_the_stated_licence_is_published(publisher: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    folder = make_data_set(tmp_path / "job", licence=None)
    before = (folder / "README.md").read_bytes()
    said = publisher("publish", folder, "--dry-run", "--license", "cc-by-4.0")
    assert said.status == 0 and (folder / "README.md").read_bytes() == before
    assert publisher("publish", folder, "--repo-id", "me/x", "--license", "cc-by-4.0").status == 0
    there = hub.data_set("me/x").find("main").files["README.md"].content
    assert there == (folder / "README.md").read_bytes() and there.startswith(b"---\nlicense: cc-by-4.0\n")
    again = publisher("publish", folder, "--repo-id", "me/x")  # it stays stated
    assert again.status == 0 and "nothing to do" in again.out


def test_licences_that_do_not_do(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    text = (data_set / "README.md").read_text()
    cases: dict[tuple[str, ...], str] = {
        ("--license", "no-such"): "--license: ",
        ("--license", "other"): "--license-name: ",
        ("--license", "other", "--license-name", "ours", "--license-link", "LICENSE"): "LICENSE: is not there",
    }
    for options, words in cases.items():
        said = publisher("publish", data_set, "--repo-id", "me/x", *options)
        assert said.status == ExitStatus.BAD_INPUT and words in said.line, said
    (data_set / "README.md").write_text(text.replace("license: apache-2.0", "license: mit"))
    said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == ExitStatus.BAD_INPUT and "says license mit, and the data set's is apache-2.0" in said.line
    assert hub.asked == []
    (data_set / "LICENSE").write_text("as you like")
    options = ("--license", "other", "--license-name", "ours", "--license-link", "LICENSE")
    assert publisher("publish", data_set, "--repo-id", "me/x", *options).status == 0
    assert hub.data_set("me/x").find("main").files["LICENSE"].content == b"as you like"


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        ("", ExitStatus.BAD_INPUT, "no token of the Hub is here; log in (hf auth login)"),
        ("hf_wrong0Token1Of2Somebody", ExitStatus.BAD_INPUT, "the Hub does not take the token (401: Invalid cred"),
        ("hf_töken0Token1Of2Somebody", ExitStatus.BAD_INPUT, "has characters that none has; log in again"),
        ("hf_two Token1Of2Somebody", ExitStatus.BAD_INPUT, "has characters that none has; log in again"),
    ],
)
def test_a_token_that_is_none(
    served: tuple[CommitHub, str], hub: CommitHub, data_set: Path, tmp_path: Path, token: str, status: int, words: str
) -> None:
    with Publisher(served[1], token, tmp_path / "home") as publisher:
        said = publisher("publish", data_set, "--repo-id", "me/x")
        assert said.status == status and words in said.line, said
        assert not token or token not in said.everything + publisher.log
        if not token:
            assert publisher("publish", data_set, "--repo-id", "me/x", "--dry-run").status == 0


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://127.0.0.1", "http://", "http://u:pass1234@[x"])
def test_an_address_that_is_none(data_set: Path, tmp_path: Path, endpoint: str) -> None:
    """Nothing that passes: it is not tried again."""
    with Publisher(endpoint, "hf_any0Token1Of2Somebody", tmp_path / "home") as publisher:
        for more in ((), ("--dry-run",)):
            said = publisher("publish", data_set, "--repo-id", "me/x", *more)
            assert said.status == ExitStatus.BAD_INPUT and "is no address of a Hub; unset it" in said.line, said
            assert said.line.startswith("mpg: HF_ENDPOINT: ") and "pass1234" not in said.everything


@pytest.mark.parametrize("more", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network(data_set: Path, tmp_path: Path, more: dict[str, str]) -> None:
    with Publisher("http://127.0.0.1:9", "hf_any0Token1Of2Somebody", tmp_path / "home", more) as publisher:
        said = publisher("publish", data_set, "--dry-run", "--repo-id", "me/x")
        assert said.status == 0 and "README.md" in said.out and "note: not compared: me/x: " in said.out, said
        assert "tries" not in said.out and "goes on" not in said.out, said  # it was asked once
        if more:
            said = publisher("publish", data_set, "--repo-id", "me/x")
            assert said.status == ExitStatus.TRY_AGAIN and "HF_HUB_OFFLINE keeps the Hub" in said.line, said
