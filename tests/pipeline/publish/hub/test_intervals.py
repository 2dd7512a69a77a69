"""Each published interval is a tag: made once, found again, kept in order; and the gate reads them there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.exit_status import ExitStatus
from tests.hub_commits import CommitHub
from tests.hub_desk import Publisher, make_data_set

ENDED = {"timings": {"ended": "later"}}


def week(folder: Path, interval: str, n_rows: int = 6, **more: Any) -> Path:
    return make_data_set(folder, n_rows, interval=interval, output="out/{interval}", **more)


def said(publisher: Publisher, *words: str | Path, status: int = 0) -> dict[str, Any]:
    answer = publisher(*words, "--json")
    assert answer.status == status, answer
    return dict(json.loads(answer.out))


def test_an_interval_is_a_tag_and_is_published_once(publisher: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    first = week(tmp_path / "a", "2026-11-16")
    made = said(publisher, "publish", first, "--repo-id", "me/weekly")
    assert (made["stage"], made["interval"], made["tag"], made["made"]) == ("publish", "2026-11-16", "2026-11-16", True)
    repository = hub.data_set("me/weekly")
    again = said(publisher, "publish", first, "--repo-id", "me/weekly")
    assert not again["made"] and again["commit"] == made["commit"] == repository.tags["2026-11-16"]
    second = said(publisher, "publish", week(tmp_path / "b", "2026-11-23", 7), "--repo-id", "me/weekly")
    assert repository.tags == {"2026-11-16": made["commit"], "2026-11-23": second["commit"]}
    assert repository.find("main").oid == second["commit"] and len(repository.history()) == 2
    # main has moved on, and the run was given again: its record differs, its tables do not
    week(tmp_path / "a", "2026-11-16", run=ENDED)
    again = said(publisher, "publish", first, "--repo-id", "me/weekly")
    assert (again["made"], again["commit"]) == (False, made["commit"]) and len(repository.history()) == 2
    assert "tag 2026-11-16 is on these very tables: nothing to do" in " ".join(again["notes"])
    dry = said(publisher, "publish", first, "--repo-id", "me/weekly", "--dry-run")
    assert "tag 2026-11-16 is on these very tables" in " ".join(dry["notes"])
    # other texts under the same tag are refused: whoever relies on it keeps what it was
    other = publisher("publish", week(tmp_path / "a", "2026-11-16", 9), "--repo-id", "me/weekly")
    assert other.status == ExitStatus.BAD_INPUT and "--tag 2026-11-16: is on " in other.line


def test_an_older_interval_does_not_take_the_newest_one_s_place(
    publisher: Publisher, hub: CommitHub, tmp_path: Path
) -> None:
    newest = said(publisher, "publish", week(tmp_path / "b", "2026-11-23", 7), "--repo-id", "me/late")
    late = week(tmp_path / "a", "2026-11-16")
    dry = said(publisher, "publish", late, "--repo-id", "me/late", "--dry-run")
    assert "branch backfill would be made from main" in dry["notes"] and dry["tag"] == "2026-11-16"
    assert "onto the branch backfill, as 2026-11-23 is published: main keeps the newest" in dry["notes"]
    listed = publisher("publish", late, "--dry-run").out.splitlines()
    assert listed[listed.index("its tag would be 2026-11-16") - 1].endswith("nothing is made or sent")
    for made in (True, False):
        found = said(publisher, "publish", late, "--repo-id", "me/late")
        assert found["made"] is made and found["tag"] == "2026-11-16"
    repository = hub.data_set("me/late")
    assert repository.branches["main"] == newest["commit"] and repository.branches["backfill"] == found["commit"]
    assert repository.tags == {"2026-11-23": newest["commit"], "2026-11-16": found["commit"]}
    named = said(
        publisher, "publish", week(tmp_path / "d", "2026-11-09", 5), "--repo-id", "me/late", "--tag", "week-45"
    )
    assert repository.branches["main"] == newest["commit"] and repository.branches["backfill"] == named["commit"]
    third = said(publisher, "publish", week(tmp_path / "c", "2026-11-30", 8), "--repo-id", "me/late")
    assert repository.branches["main"] == third["commit"]


def test_tags_of_another_form_keep_the_newest_interval_on_main(
    publisher: Publisher, hub: CommitHub, tmp_path: Path
) -> None:
    newest = said(publisher, "publish", week(tmp_path / "b", "2026-11-23"), "--repo-id", "me/own", "--tag", "week-47")
    said(publisher, "publish", week(tmp_path / "a", "2026-11-16", 7), "--repo-id", "me/own", "--tag", "week-46")
    assert hub.data_set("me/own").branches["main"] == newest["commit"]


def test_an_interval_that_is_not_the_folder_s_is_refused(publisher: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    of_one, of_none = week(tmp_path / "a", "2026-11-16"), make_data_set(tmp_path / "b", 6)
    for words in (
        ("publish", of_one, "--repo-id", "me/other"),
        ("gate", of_one),
        ("report", of_one),
        ("report", of_none),
    ):
        found = said(publisher, *words, "--interval", "2026-11-23", status=ExitStatus.BAD_INPUT)
        has = "no interval" if words[1] == of_none else "the interval 2026-11-16"
        assert found["problem"] == f"--interval 2026-11-23: {words[1]} is of {has}; name its folder, or that"
    assert not hub.repositories


def test_the_gate_reads_the_interval_before_on_the_hub(publisher: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    first, second = week(tmp_path / "a", "2026-11-16"), week(tmp_path / "b", "2026-11-23", 7)
    found = said(publisher, "gate", first, "--against", "me/gated@previous")
    assert found["against"] is None and "me/gated is not on the Hub, or not for this token" in found["notes"][0]
    said(publisher, "publish", first, "--repo-id", "me/gated")
    found = said(publisher, "gate", first, "--against", "me/gated@previous")
    assert found["against"] is None and "me/gated has no tag of an interval before 2026-11-16" in found["notes"][0]
    for revision in ("previous", "2026-11-16", "main"):
        found = said(publisher, "gate", second, "--against", f"me/gated@{revision}")
        assert found["against"] == f"me/gated@{revision.replace('previous', '2026-11-16')}"
    said(publisher, "publish", second, "--repo-id", "me/gated")
    found = said(publisher, "gate", second, "--against", "me/gated@main")
    assert "is this very data set: it is published already" in found["notes"][0]
    fewer = week(tmp_path / "c", "2026-11-30", 3)
    found = said(publisher, "gate", fewer, "--against", "me/gated@previous", status=ExitStatus.REFUSED)
    assert found["against"] == "me/gated@2026-11-23" and "3 rows, 57.1% fewer than 7" in found["problem"]
    found = said(publisher, "gate", first, "--against", "me/gated@2026-01-05", status=ExitStatus.BAD_INPUT)
    assert found["problem"].startswith("me/gated@2026-01-05: no such revision")
