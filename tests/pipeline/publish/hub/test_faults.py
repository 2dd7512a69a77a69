"""What goes wrong on the way: waited for, looked at anew, or said in one line; never a second commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.exit_status import ExitStatus
from pipeline.publish.hub.errors import Passing, PublishError
from pipeline.publish.hub.patience import Patience
from tests.hub_commits import CommitHub, Fault
from tests.hub_desk import Publisher, edit

ASKED_TO_WAIT = {"retry_after": "0"}
PASSING = {
    "a repository that is made at the second try": Fault(r"POST /api/repos/create", status=503),
    "429 at the first question": Fault(r"GET /api/datasets/me/x$", status=429, headers=ASKED_TO_WAIT),
    "429 where files are listed": Fault(r"GET .*/tree/", status=429, headers=ASKED_TO_WAIT),
    "500 in mid-upload": Fault(r"PUT /lfs/", status=500),
    "a connection that breaks in mid-upload": Fault(r"PUT /lfs/", how="break"),
    "an upload whose answer is lost": Fault(r"PUT /lfs/", how="lose"),
    "a card that is looked at in vain": Fault(r"POST /api/validate-yaml", how="break"),
    "a commit that breaks": Fault(r"POST .*/commit/", how="break"),
    "502 for a commit": Fault(r"POST .*/commit/", status=502),
    "429 for a commit": Fault(r"POST .*/commit/", status=429, headers=ASKED_TO_WAIT),
    "a commit whose answer is lost": Fault(r"POST .*/commit/", how="lose"),
    "a tag whose answer is lost": Fault(r"POST .*/tag/", how="lose"),
    "rows that can't be read at first": Fault(r"GET .*/resolve/.*/data/", status=503),
}


@pytest.mark.parametrize("what", PASSING)
def test_what_passes_is_waited_for(publisher: Publisher, hub: CommitHub, data_set: Path, what: str) -> None:
    fault = PASSING[what]
    hub.faults.append(fault)
    said = publisher("publish", data_set, "--repo-id", "me/x", "--tag", "v1")
    fault.times, times_left = 1, fault.times
    assert said.status == 0 and times_left == 0, said
    repository = hub.data_set("me/x")
    assert len(repository.history()) == 1 and repository.tags == {"v1": repository.find("main").oid}
    assert ": 7 new, 0 changed, 0 removed, 0 as they were" in said.out


def test_a_pull_request_whose_answer_is_lost_is_found(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    repository = hub.make("me/x")
    hub.faults.append(Fault(r"POST .*/commit/", how="lose"))
    said = publisher("publish", data_set, "--repo-id", "me/x", "--create-pr")
    assert said.status == 0 and "/discussions/1" in said.out, said
    assert len(repository.requests) == 1


def test_what_can_not_be_read_back_now_is_published(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    hub.faults.append(Fault(r"GET .*/tree/", status=403, words="not now", times=99, after=1))
    said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == 1 and "/datasets/me/x: published, and not read back: " in said.line, said
    hub.faults.clear()
    assert publisher("publish", data_set, "--repo-id", "me/x").status == 0
    assert len(hub.data_set("me/x").history()) == 1


def test_a_moved_parent_is_looked_at_anew(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    repository = hub.make("me/x")
    push = lambda: repository.push({"notes.md": b"meanwhile"})  # noqa: E731
    hub.faults.append(Fault(r"POST .*/commit/", how="call", call=push, times=2))
    said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == 0, said
    assert repository.history() == ["Publish entj-demo", "by hand", "by hand"]
    assert repository.find("main").files["notes.md"].content == b"meanwhile"
    assert hub.received == sum(
        len(blob.content) for path, blob in repository.find("main").files.items() if path not in BESIDE
    )


BESIDE = (".gitattributes", "notes.md")


def test_a_parent_that_moved_under_our_own_file_is_refused(
    publisher: Publisher, hub: CommitHub, data_set: Path
) -> None:
    assert publisher("publish", data_set, "--repo-id", "me/x").status == 0
    repository = hub.data_set("me/x")
    edit(data_set)
    push = lambda: repository.push({"README.md": b"a person's, a second ago"})  # noqa: E731
    hub.faults.append(Fault(r"POST .*/commit/", how="call", call=push))
    said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == 2 and "README.md was changed on the Hub since" in said.line
    assert repository.find("main").files["README.md"].content == b"a person's, a second ago"


def test_refused_for_good_is_said_in_the_hub_s_words(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    words = "You have exceeded your private storage limit"
    for fits in (r"/objects/batch", r"/commit/"):
        hub.faults[:] = [Fault(fits, status=403, words=words, times=99)]
        said = publisher("publish", data_set, "--repo-id", "me/quota")
        assert said.status == 1 and words in said.line and "403" in said.line, said
        assert hub.data_set("me/quota").history() == []
    hub.faults.clear()
    said = publisher("publish", data_set, "--repo-id", "you/x")
    assert said.status == 1 and "you/x: can't be made: the Hub refused (403: You don't have the rights" in said.line


def test_what_is_not_there_afterwards_is_said(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    def spoil() -> None:
        repository = hub.data_set("me/x")
        oid = repository.branches["main"]
        files = dict(repository.commits[oid].files)
        del files["judgments/train-00000-of-00001.parquet"]
        object.__setattr__(repository.commits[oid], "files", files)

    hub.faults.append(Fault(r"GET .*/tree/", how="call", call=spoil, after=1))
    said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == 1 and "judgments/train-00000-of-00001.parquet is not there" in said.line, said


def test_rows_that_come_back_as_others_are_said(publisher: Publisher, hub: CommitHub, data_set: Path) -> None:
    """A person's file of the Hub's side is read with ours: by name it comes first."""
    assert publisher("publish", data_set, "--repo-id", "me/x").status == 0
    repository = hub.data_set("me/x")
    theirs = repository.find("main").files["judgments/train-00000-of-00001.parquet"].content
    repository.push({"data/train-00000-of-00000.parquet": theirs})
    said = publisher("publish", data_set, "--repo-id", "me/x")
    assert said.status == 1 and "published, and not what is here: " in said.line, said


# Patience itself, without a Hub and without waiting.


def times_out(problem: PublishError, **how: float) -> tuple[list[float], PublishError]:
    slept: list[float] = []

    def fail() -> None:
        raise problem

    with pytest.raises(PublishError) as caught:
        Patience(sleep=slept.append, **how).over(fail)  # type: ignore[arg-type]
    return slept, caught.value


def test_pauses_grow_and_end_in_one_line_to_try_again() -> None:
    slept, error = times_out(Passing("x: the Hub answered 500"), longest_s=5)
    assert slept == [1, 2, 4, 5, 5] and error.status == ExitStatus.TRY_AGAIN
    assert str(error).startswith("x: the Hub answered 500; 6 tries; the same command goes on")


def test_a_pause_that_is_asked_for_is_kept_unless_it_is_too_long() -> None:
    assert times_out(Passing("x", 7.0))[0] == [7.0] * 5
    slept, error = times_out(Passing("x", 3600.0))
    assert slept == [] and "asks to wait 3600 s" in str(error) and error.status == ExitStatus.TRY_AGAIN


def test_what_does_not_pass_is_not_tried_again() -> None:
    slept, error = times_out(PublishError("x: no"))
    assert slept == [] and str(error) == "x: no" and error.status == ExitStatus.BAD_INPUT
