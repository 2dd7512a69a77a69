"""A data set on the Hub and back, through the Hub's own client and `datasets`, over HTTP."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.hub_commits import CommitHub
from tests.hub_desk import Publisher, edit, make_data_set

PUBLISHED = {
    "README.md",
    "data/train-00000-of-00001.parquet",
    "job.json",
    "judgments/train-00000-of-00001.parquet",
    "manifest.json",
    "published.json",
    "run.json",
}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet") if ".work" not in path.parts)


def test_one_commit_has_every_file_as_it_is_here(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    said = publisher("publish", data_set, "--repo-id", "me/one", "--tag", "v1", "--message", "First corpus")
    assert said.status == 0, said
    repository = hub.data_set("me/one")
    head = repository.find("main")
    assert repository.history() == ["First corpus"] and repository.tags == {"v1": head.oid}
    assert set(head.files) == PUBLISHED | {".gitattributes"}
    for path in PUBLISHED - {"published.json"}:
        assert head.files[path].content == (data_set / path).read_bytes(), path
    assert head.files["data/train-00000-of-00001.parquet"].large and not head.files["README.md"].large
    record = json.loads(head.files["published.json"].content)["files"]
    assert set(record) == PUBLISHED - {"published.json"}
    for path, known in record.items():
        assert known["sha256"] == hashlib.sha256(head.files[path].content).hexdigest()
        assert known["oid"] == hub_oid(head.files[path].content)
    assert f"{publisher.endpoint}/datasets/me/one" in said.out and head.oid in said.out
    assert f"{sum(len(head.files[path].content) for path in PUBLISHED):,} bytes sent, 0 bytes were there" in said.out
    assert "read back" in said.out
    reads = [each for each in hub.asked if each.startswith("GET") and "/resolve/" in each and "parquet" in each]
    assert {each.split("/")[-2] for each in reads} == {"data", "judgments"}


def hub_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_again_nothing_is_sent_and_a_tag_is_still_put(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    assert publisher("publish", data_set, "--repo-id", "me/again").status == 0
    hub.received = 0
    hub.asked.clear()
    said = publisher("publish", data_set, "--repo-id", "me/again", "--tag", "v1")
    assert said.status == 0 and "nothing to do" in said.out, said
    repository = hub.data_set("me/again")
    assert len(repository.history()) == 1 and hub.received == 0
    assert repository.tags == {"v1": repository.find("main").oid}
    assert not [each for each in hub.asked if "/commit/" in each or "/preupload/" in each or each.startswith("PUT")]
    assert publisher("publish", data_set, "--repo-id", "me/again", "--tag", "v1").status == 0


def test_of_a_data_set_that_has_grown_only_what_is_new_is_sent(
    publisher: Publisher, hub: CommitHub, tmp_path: Path
) -> None:
    folder = make_data_set(tmp_path / "job", 6)
    (folder / "figures").mkdir()
    (folder / "figures" / "plot.png").write_bytes(b"\x89PNG" + bytes(50_000))
    assert publisher("publish", folder, "--repo-id", "me/grown").status == 0
    first = dict(hub.data_set("me/grown").find("main").files)
    hub.received = 0
    make_data_set(tmp_path / "job", 9)
    said = publisher("publish", folder, "--repo-id", "me/grown")
    assert said.status == 0, said
    repository = hub.data_set("me/grown")
    now = repository.find("main").files
    assert len(repository.history()) == 2 and set(now) == set(first)
    other = {path for path in now if now[path] != first[path]}
    assert "data/train-00000-of-00001.parquet" in other and "figures/plot.png" not in other
    assert hub.received == sum(len(now[path].content) for path in other) < 50_000
    assert f"{hub.received:,} bytes sent" in said.out and "changed, 0 removed" in said.out


def test_content_under_another_name_is_not_sent_again(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    """As files of a data set that has grown: the same bytes, `-of-00002` where they were `-of-00001`."""
    (data_set / "figures").mkdir()
    (data_set / "figures" / "a-of-1.png").write_bytes(bytes(40_000))
    assert publisher("publish", data_set, "--repo-id", "me/moved").status == 0
    hub.received = 0
    (data_set / "figures" / "a-of-1.png").rename(data_set / "figures" / "a-of-2.png")
    said = publisher("publish", data_set, "--repo-id", "me/moved")
    files = hub.data_set("me/moved").find("main").files
    assert said.status == 0 and "1 new, 1 changed, 1 removed" in said.out, said
    assert set(files) >= {"figures/a-of-2.png"} and "figures/a-of-1.png" not in files
    assert hub.received == len(files["published.json"].content)
    assert f"{hub.received:,} bytes sent" in said.out


def test_what_is_no_longer_in_the_data_set_goes_and_what_is_not_ours_stays(
    publisher: Publisher, hub: CommitHub, data_set: Path
) -> None:
    (data_set / "figures").mkdir()
    for name in ("old.png", "kept.png"):
        (data_set / "figures" / name).write_bytes(name.encode())
    assert publisher("publish", data_set, "--repo-id", "me/gone").status == 0
    repository = hub.data_set("me/gone")
    repository.push({"notes/mine.md": b"a person's", "data/theirs.parquet": b"x"})
    (data_set / "figures" / "old.png").unlink()
    said = publisher("publish", data_set, "--repo-id", "me/gone")
    assert said.status == 0 and "0 new, 1 changed, 1 removed" in said.out, said  # the record is changed, too
    files = repository.find("main").files
    assert "figures/old.png" not in files and "figures/kept.png" in files
    assert files["notes/mine.md"].content == b"a person's" and "data/theirs.parquet" in files
    assert "note: not of this data set, and in its folders there: data/theirs.parquet" in said.out
    assert repository.history() == ["Publish entj-demo", "by hand", "Publish entj-demo"]


def test_another_s_file_that_readers_would_take_for_ours(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    """`load_dataset` reads whatever the card's patterns fit: more rows than are here."""
    assert publisher("publish", data_set, "--repo-id", "me/mixed").status == 0
    repository = hub.data_set("me/mixed")
    repository.push({"data/train-theirs.parquet": b"x", "data/x/train-1.parquet": b"x"})
    words = "data/train-theirs.parquet is not of this data set, and load_dataset reads it, too; rename or remove it"
    said = publisher("publish", data_set, "--repo-id", "me/mixed")
    assert said.status == 1 and words in said.line and "read back" not in said.out, said
    assert "data/train-theirs.parquet" in repository.find("main").files
    said = publisher("publish", data_set, "--repo-id", "me/mixed", "--dry-run")
    assert said.status == 0 and f"note: {words}" in said.out, said


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("README.md", "README.md was changed on the Hub since"),
        ("figures/old.png", "figures/old.png was changed on the Hub since, and is no longer in the data set"),
        ("published.json", "published.json is somebody else's"),
    ],
)
def test_what_a_person_changed_there_is_noticed(
    publisher: Publisher, hub: CommitHub, data_set: Path, path: str, words: str
) -> None:
    (data_set / "figures").mkdir()
    (data_set / "figures" / "old.png").write_bytes(b"old")
    assert publisher("publish", data_set, "--repo-id", "me/edited").status == 0
    repository = hub.data_set("me/edited")
    head = repository.push({path: b"---\nlicense: mit\n---\nby a person\n"})
    (data_set / "figures" / "old.png").unlink()
    edit(data_set)
    hub.received = 0
    said = publisher("publish", data_set, "--repo-id", "me/edited")
    assert said.status == 2 and words in said.line and f"--overwrite {path}" in said.line
    assert repository.find("main").oid == head and hub.received == 0
    taken = [option for each in said.line.split("--overwrite ")[1:] for option in ("--overwrite", each.split()[0])]
    assert publisher("publish", data_set, "--repo-id", "me/edited", *taken).status == 0
    files = repository.find("main").files
    assert files["README.md"].content == (data_set / "README.md").read_bytes()
    # Without its record nobody knows whose a file is, that is not in the data set: it stays.
    assert ("figures/old.png" in files) == (path == "published.json")


def test_a_repository_of_somebody_else_s_files(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    repository = hub.make("me/theirs")
    head = repository.push({"README.md": b"theirs", "data": b"a file where a folder has to be"})
    said = publisher("publish", data_set, "--repo-id", "me/theirs")
    assert said.status == 2 and "README.md is somebody else's" in said.line and "data stands where" in said.line
    assert said.line.endswith("or move it, or say --overwrite README.md")
    assert repository.find("main").oid == head
    repository.push({"data": None})
    said = publisher("publish", data_set, "--repo-id", "me/theirs", "--overwrite", "README*")
    assert said.status == 0, said


def test_what_a_gitignore_there_says_is_published_all_the_same(
    publisher: Publisher, hub: CommitHub, data_set: Path
) -> None:
    hub.make("me/ignores").push({".gitignore": b"*.json\ndata/*\n"})
    said = publisher("publish", data_set, "--repo-id", "me/ignores")
    assert said.status == 0, said
    assert set(hub.data_set("me/ignores").find("main").files) >= PUBLISHED


def test_a_branch_is_made_and_main_stays(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    for _ in range(2):
        said = publisher("publish", data_set, "--repo-id", "me/branch", "--revision", "next/one")
        assert said.status == 0, said
    repository = hub.data_set("me/branch")
    assert repository.history("main") == [] and len(repository.history("next/one")) == 1
    repository.tags["v1"] = repository.find("main").oid
    said = publisher("publish", data_set, "--repo-id", "me/branch", "--revision", "v1")
    assert said.status == 2 and "--revision v1: is a tag" in said.line
    said = publisher("publish", data_set, "--repo-id", "me/branch", "--revision", "refs/pr/9")
    assert said.status == 2 and "--revision refs/pr/9: me/branch has none; name a branch" in said.line


def test_a_pull_request_is_proposed_once(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    repository = hub.make("me/request")
    said = publisher("publish", data_set, "--repo-id", "me/request", "--create-pr")
    assert said.status == 0 and "/datasets/me/request/discussions/1" in said.out, said
    again = publisher("publish", data_set, "--repo-id", "me/request", "--create-pr")
    assert again.status == 0 and "/discussions/1" in again.out and "nothing to do" in again.out, again
    assert ": 0 bytes sent" in again.out, again
    assert repository.requests == {1: "open"} and repository.history() == []
    repository.requests[1] = "closed"
    assert publisher("publish", data_set, "--repo-id", "me/request", "--create-pr").status == 0
    assert len(repository.requests) == 2 and len(repository.history("refs/pr/2")) == 1
    said = publisher("publish", data_set, "--repo-id", "me/nobody", "--create-pr")
    assert said.status == 2 and "--create-pr: me/nobody is not on the Hub" in said.line


def test_private_and_gated_are_as_asked_for_and_never_changed(
    publisher: Publisher, hub: CommitHub, data_set: Path
) -> None:
    said = publisher("publish", data_set, "--repo-id", "me/closed", "--private", "--gated")
    assert said.status == 0, said
    assert hub.data_set("me/closed").private and hub.data_set("me/closed").gated == "auto"
    assert publisher("publish", data_set, "--repo-id", "me/closed").status == 0
    assert hub.data_set("me/closed").private and hub.data_set("me/closed").gated == "auto"
    assert publisher("publish", data_set, "--repo-id", "me/open").status == 0
    for option in ("--private", "--gated"):
        said = publisher("publish", data_set, "--repo-id", "me/open", option)
        assert said.status == 2 and said.line.startswith(f"mpg: {option}: me/open is there"), said
    assert not hub.data_set("me/open").private and not hub.data_set("me/open").gated


def test_a_tag_stays_where_it_is(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    assert publisher("publish", data_set, "--repo-id", "me/tag", "--tag", "v1").status == 0
    repository = hub.data_set("me/tag")
    tagged = repository.tags["v1"]
    edit(data_set)
    said = publisher("publish", data_set, "--repo-id", "me/tag", "--tag", "v1")
    assert said.status == 2 and f"--tag v1: is on {tagged[:12]}" in said.line
    assert repository.tags == {"v1": tagged} and len(repository.history()) == 1


def test_a_dry_run_makes_nothing(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    said = publisher("publish", data_set, "--dry-run", "--repo-id", "me/dry", "--private")
    assert said.status == 0 and "me/dry would be made" in said.out and not hub.repositories, said
    assert publisher("publish", data_set, "--repo-id", "me/dry").status == 0
    hub.asked.clear()
    edit(data_set)
    said = publisher("publish", data_set, "--dry-run", "--repo-id", "me/dry", "--revision", "other")
    lines = {line.split()[0]: line.split()[-1] for line in said.out.splitlines() if line.strip()}
    assert lines["README.md"] == "changed" and lines["job.json"] == "same", said
    assert "branch other would be made from main" in said.out
    assert not [each for each in hub.asked if not each.startswith(("GET", "HEAD"))]
    hub.data_set("me/dry").push({"README.md": b"a person's"})
    said = publisher("publish", data_set, "--dry-run", "--repo-id", "me/dry")
    assert said.status == 2 and "README.md was changed on the Hub since" in said.line, said
    lines = {line.split()[0]: line.split()[2:] for line in said.out.splitlines() if line.strip()}
    assert lines["README.md"] == ["not", "ours"] and lines["job.json"] == ["same"], said


def test_pages_of_files_and_pieces_of_files(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    hub.page, hub.part_size = 2, 1000
    said = publisher("publish", data_set, "--repo-id", "me/pages", "--json")
    assert said.status == 0, said
    done = json.loads(said.out)
    assert done["commit"] == hub.data_set("me/pages").find("main").oid and set(done["files"]) == PUBLISHED
    assert any("&part=2" in each for each in hub.asked) and done["problems"] == []
    assert publisher("publish", data_set, "--repo-id", "me/pages").status == 0
    assert len(hub.data_set("me/pages").history()) == 1
