"""What a job learns from its adapters' folders: descriptions for judges, and judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE
from personas import MBTI
from pipeline.job.adapters import adapter_folder, judging_lines, own_judges
from pipeline.job.known import assignments, counted
from pipeline.job.recorded import recorded
from tests.job_desk import Desk
from tests.own_judge import put_judge

OWN = "attributes=[{name: curious, adapter: curious}]"
OPENAI = "judges=[{kind: openai, model: m}]"
ACCEPT = "accept={min_score: 0.5, rows_per_cell: 1, max_candidates: 3}"


def adapter(desk: Desk, place: str, **card: object) -> Path:
    folder = desk.adapter(place)
    if card:
        (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return folder


def test_the_adapters_card_describes_what_the_job_does_not(desk: Desk) -> None:
    adapter(desk, "curious", name="curious", description="Asks  and\nwonders.", opposite="Takes things as they are.")
    (own,) = desk.load(OWN).described_attributes()
    assert (own.name, own.description, own.opposite) == ("curious", "Asks and wonders.", "Takes things as they are.")
    (given,) = desk.load("attributes=[{name: keen, adapter: curious, description: Is keen.}]").described_attributes()
    assert (given.name, given.description, given.opposite) == ("keen", "Is keen.", "Takes things as they are.")
    assert desk.load(OWN, OPENAI).described_attributes() == (own,)  # and a judge behind an endpoint is content


def test_a_data_set_records_what_the_card_says(desk: Desk) -> None:
    """Where it is judged again, its adapters may not be; what is known by name, or ships, needs no word."""
    adapter(desk, "curious", description="Asks and wonders.", opposite="Takes things as they are.")
    adapter(desk, "mine", description="Is enthusiastic.")
    adapter(desk, "silent")
    text = "attributes=[{name: curious, adapter: curious}, {name: E, adapter: mine}, {name: T, adapter: silent}, N]"
    told = [(each["description"], each["opposite"]) for each in recorded(desk.load(text))["attributes"]]
    wanted = [
        ("Asks and wonders.", "Takes things as they are."),
        ("Is enthusiastic.", None),
        (None, None),
        (None, None),
    ]
    assert told == wanted


def test_an_own_adapter_with_a_poles_name_is_what_its_card_says(desk: Desk) -> None:
    adapter(desk, "mine", description="Is enthusiastic.")
    adapter(desk, "like-ours", description=MBTI["J"].description)
    adapter(desk, "silent", description="")
    mine, ours, silent, shipped = desk.load(
        "attributes=[{name: E, adapter: mine}, {name: J, adapter: like-ours}, {name: T, adapter: silent}, N]"
    ).described_attributes()
    assert (mine.description, mine.opposite) == ("Is enthusiastic.", None)
    assert (ours, silent, shipped) == (MBTI["J"], MBTI["T"], MBTI["N"])


@pytest.mark.parametrize("content", ["", "[]", "{", '{"description": 3}', '{"description": null}', "\x00"])
def test_a_card_of_somebody_else_is_no_error(desk: Desk, content: str) -> None:
    (adapter(desk, "curious") / "card.json").write_text(content)
    assert desk.load(OWN).described_attributes()[0].description == ""


def test_check_says_that_a_description_is_missing(desk: Desk) -> None:
    adapter(desk, "curious")
    line = desk.line(OWN, OPENAI)
    assert line.startswith(
        "attributes[0].description: 'curious' has none, which a judge behind an endpoint grades by; "
    )
    desk.load(OWN, OPENAI, "attributes.0.description=Asks and wonders.")
    desk.load(OWN)  # no judge asks for one
    assert desk.load("attributes=[{name: curious, adapter: someone/curious}]", OPENAI)  # its card may have one


def on_the_hub(cache: Path, repository: str) -> Path:
    """A snapshot of a repository in the Hub's cache."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    folder = place / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_an_adapter_of_the_hub_is_looked_into_once_it_is_here(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    job = desk.load("attributes=[{name: curious, adapter: someone/curious}]")
    assert job.described_attributes()[0].description == "" and own_judges(job) == {}
    assert any("unless its adapter brings one" in line for line in judging_lines(job, {}))
    folder = on_the_hub(tmp_path / "cache", "someone/curious")
    (folder / "card.json").write_text('{"description": "Asks and wonders."}')
    put_judge(folder)
    assert job.described_attributes()[0].description == "Asks and wonders."
    assert own_judges(job)["curious"].folder == folder
    # What models are told must not change between two runs of a job: a name that is known stays what it is.
    pole = desk.load("attributes=[{name: E, adapter: someone/curious}]")
    assert pole.described_attributes() == (MBTI["E"],) and own_judges(pole)["E"].counted


@pytest.mark.parametrize("place", ["no/such/folder", "../x", "a b", "embedded/x"])
def test_what_is_no_place_has_no_folder(place: str) -> None:
    assert adapter_folder(place) is None


def test_judges_beside_adapters_take_part(desk: Desk) -> None:
    folder = adapter(desk, "curious")
    job = desk.load(OWN)
    assert own_judges(job) == {}
    assert list(judging_lines(job, {})) == ["no judge of this job knows curious: unjudged"]
    put_judge(folder)
    own = own_judges(job)
    assert counted(job.judges, job.attribute_names, own) == ["curious"]
    (line,) = judging_lines(job, own)
    assert line.startswith(
        "curious: judged by its adapter's own judge, fitted on the adapter's own pairs; held-out acc"
    )
    assert list(judging_lines(job, own, counted=False)) == []
    desk.load(OWN, ACCEPT)
    assert own_judges(desk.load(OWN, "judges=[{kind: persona-match}]")) == {}  # no classifier is asked


def test_an_own_judge_takes_the_shipped_ones_place_if_it_counts(desk: Desk) -> None:
    folder = adapter(desk, "mine")
    job = desk.load("attributes=[{name: E, adapter: mine}, J]", "judges=[{kind: classifier}, {kind: encoder}]")

    def who() -> list[tuple[str, tuple[str, ...], bool]]:
        found = assignments(job.judges, job.attribute_names, own_judges(job))
        return [(each.called, each.attributes, each.counts) for each in found]

    shipped, encoder = ("classifier", ("E", "J"), True), ("encoder", ("E", "J"), True)
    assert who() == [shipped, encoder]
    put_judge(folder)
    assert who() == [("classifier", ("J",), True), ("classifier of E", ("E",), True), ("encoder", ("J",), True)]
    put_judge(folder, good=False)
    assert who() == [shipped, ("classifier of E", ("E",), False), encoder]


def test_accept_does_not_count_a_poor_judge_and_says_why(desk: Desk) -> None:
    put_judge(adapter(desk, "curious"), good=False)
    line = desk.line(OWN, ACCEPT)
    assert line.startswith("accept: no independent judge of this job knows curious (curious: fitted on ")
    assert "not counted: " in line and line.endswith("add one to judges (from --set)")
    two = "attributes=[E, {name: curious, adapter: curious}]"
    line = desk.line(two, "personas={kind: one-hot}", ACCEPT)
    assert "knows curious of persona 'curious1.00' (curious: fitted on" in line
    desk.load("attributes=[{name: curious, adapter: someone/curious}]", ACCEPT)  # its adapter may bring a judge
    line = desk.line("attributes=[{name: curious, adapter: someone/curious}]", ACCEPT, "judges=[{kind: persona-match}]")
    assert line.startswith("accept: no independent judge of this job knows curious;")


def test_a_damaged_judge_is_found_before_a_run(desk: Desk) -> None:
    folder = adapter(desk, "curious")
    put_judge(folder)
    (folder / WEIGHTS_FILE).write_bytes(b"x")
    line = desk.line(OWN)
    assert line.startswith("attributes: ") and "SHA-256 differs" in line
    assert line.removesuffix(" (from --set)").endswith(
        f"fit it again with mpg train, or remove {WEIGHTS_FILE} and {CARD_FILE} there"
    )
    desk.load(OWN, "judges=[]")
