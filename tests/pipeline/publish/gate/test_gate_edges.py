"""The gate at its edges: few prompts, thresholds met exactly, what is not comparable, what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.exit_status import ExitStatus
from pipeline.publish.gate.rules import beyond
from pipeline.publish.hub.patience import Patience
from tests.gate_desk import N, data_set, gate
from tests.hub_commit_server import serving_commits
from tests.hub_commits import CommitHub
from tests.made_data_set import judged, make, row


@pytest.fixture
def last(tmp_path: Path) -> Path:
    return data_set(tmp_path / "last")


def few(folder: Path, *scores: float) -> Path:
    rows = [row("E", f"p{i}", {"E": 1.0}, f"{folder.name} {i}") for i in range(len(scores))]
    return make(folder, rows, judged(rows, "E", scores), job={"name": "made"})


@pytest.mark.parametrize(
    ("was", "now", "refused"),
    [
        ((0.8, 0.9, 0.85), (0.0, 0.9, 0.0), True),  # the bound is below 0
        ((0.1, 0.9, 0.8), (0.1, 0.2, 0.1), False),  # as well, and the last interval holds the new mean
        ((0.8, 0.81), (0.1, 0.2), True),  # there is no bound
        ((0.8,), (0.1,), False),  # nor an interval
    ],
)
def test_of_few_prompts_a_note_and_the_last_interval(
    was: tuple[float, ...], now: tuple[float, ...], refused: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = gate(capsys, few(tmp_path / "new", *now), "--against", few(tmp_path / "old", *was))
    assert "adherence" not in {each["rule"] for each in found["refused"]} or refused
    assert (status == ExitStatus.REFUSED) is refused, found["problem"]
    assert any("too few prompts" in note and note.endswith(": E") for note in found["notes"])


def test_thresholds_met_exactly_pass() -> None:
    for value, limit in ((29, 0.29 * 100), ((1 - 0.41) * 100, 59), (7 / 50, 6 / 50 + 0.02), (0.8 - 0.02, 0.78), (0, 0)):
        assert not beyond(value, limit)
        assert beyond(value + 1e-6, limit)
    assert beyond(float("nan"), 1) and beyond(1, 0)


def test_exactly_as_many_rows_and_rejected_as_are_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = data_set(tmp_path / "old", n=50)
    limits = {"max_row_fall": 0.42, "max_rejected_fraction": 0.29}
    counts = {"rejected": 29, "planned": 100}
    new = data_set(tmp_path / "new", n=29, seed=1, run={"counts": counts}, job={"gate": limits})
    assert gate(capsys, new, "--against", old)[0] == 0


def test_another_panel_is_not_comparable_and_settings_of_the_decoder_are_shown(
    last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = data_set(tmp_path / "new", seed=1, job={"panel": "majority"})
    status, found = gate(capsys, new, "--against", last)
    assert status == ExitStatus.REFUSED
    assert "not comparable: the panel's majority, and was the mean" in found["problem"]
    assert {"what": "panel", "was": "mean", "is": "majority"} in found["changes"]
    old = data_set(tmp_path / "old", job={"panel": "mean", "decoder": {"temperature": 0.8, "strength": 1.0}})
    decoder = {"temperature": 1.0, "strength": {"E": 2.0}, "top_p": 0.95}  # the last is the default
    status, found = gate(capsys, data_set(tmp_path / "b", seed=1, job={"decoder": decoder}), "--against", old)
    changes = {each["what"]: (each["was"], each["is"]) for each in found["changes"] if "decoder" in each["what"]}
    assert status == 0
    assert changes == {"decoder.temperature": ("0.8", "1.0"), "decoder.strength": ("1.0", '{"E": 2.0}')}


def test_judgments_that_are_gone_have_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("E", f"p{i}", {"E": 1.0}, f"{i}") for i in range(N)]
    made = make(tmp_path / "new", rows, judged(rows[:20], "E", [0.8] * 20) * 2, job={"name": "made"})
    status, found = gate(capsys, made)
    assert status == ExitStatus.REFUSED
    assert f"10 of {N} judgments have no score (33.3%)" in found["problem"]


def test_a_job_file_whose_output_lacks_the_interval_has_its_thresholds_read(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = data_set(tmp_path / "new", job={"interval": "2026-11-23"})
    job_file.write_text(job_file.read_text() + "gate: {max_perplexity: 5}\n")
    status, found = gate(capsys, new, "--job", job_file)
    assert status == ExitStatus.REFUSED and "perplexity is 7.39, above 5" in found["problem"]


def test_what_is_no_place_is_said_of_against(last: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, words in {
        "": "--against: is empty; give a folder",
        " ": "--against: is empty; give a folder",
        "ME@previous": "--against 'ME': whose it is is missing; give OWNER/NAME",
        "me/a b@previous": "--against 'me/a b': no id of a repository",
    }.items():
        status, found = gate(capsys, last, "--against", given)
        assert status == ExitStatus.BAD_INPUT and found["problem"].startswith(words), found["problem"]
        assert "repo-id" not in found["problem"] and "\n" not in found["problem"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[CommitHub]:
    hub = CommitHub()
    with serving_commits(hub) as endpoint:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("pipeline.publish.gate.previous.token_here", lambda: hub.token)
        yield hub


@pytest.mark.parametrize("token", [None, "hf_another"])
@pytest.mark.parametrize("there", [True, False])
def test_a_repository_that_is_not_shown_is_no_first_publication(
    token: str | None, there: bool, hub: CommitHub, last: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if there:
        hub.make("me/corpus", private=True)
    monkeypatch.setattr("pipeline.publish.gate.previous.token_here", lambda: token)
    status, found = gate(capsys, last, "--against", "me/corpus@previous")
    assert status == ExitStatus.BAD_INPUT and found["problem"].startswith("--against me/corpus@previous: the Hub ")
    assert "--against none for the first publication" in found["problem"] and "HF_TOKEN" in found["problem"]
    assert "\n" not in found["problem"] and "hf_another" not in found["problem"]


def test_the_owner_s_token_tells_a_first_publication(
    hub: CommitHub, last: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = gate(capsys, last, "--against", "me/corpus@previous")
    assert status == 0 and "me/corpus is not on the Hub" in found["notes"][0]
    status, found = gate(capsys, last, "--against", "you/corpus@previous")
    assert status == ExitStatus.BAD_INPUT and "this token, which is not of you; give --against none" in found["problem"]


def test_a_hub_that_cannot_be_reached_is_no_matter_of_uploads(
    last: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda s: None)
    monkeypatch.setattr("pipeline.publish.gate.previous.Patience", lambda **how: Patience(**how, sleep=lambda s: None))
    status, found = gate(capsys, last, "--against", "me/corpus@previous")
    assert status == ExitStatus.TRY_AGAIN and "can't be reached" in found["problem"]
    assert "upload" not in found["problem"] and found["problem"].endswith("give the same command again")
