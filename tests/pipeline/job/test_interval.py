"""The interval of a scheduled job: one form of an instant, where it stands, and what it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.job.interval import interval_of, seed_of
from tests.job_desk import Desk


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("2026-11-23", "2026-11-23"),
        ("20261123", "2026-11-23"),
        ("2026-W48-1", "2026-11-23"),
        ("2026-11-23 00:00:00+00:00", "2026-11-23"),
        ("2026-11-23T00:00:00Z", "2026-11-23"),
        ("2026-11-23T00:00", "2026-11-23"),
        ("2026-11-23T00:00+01:00", "2026-11-22T230000Z"),
        ("2026-11-23T01:00+01:00", "2026-11-23"),
        ("2026-11-22T19:00-05:00", "2026-11-23"),
        ("2026-11-23T06:30", "2026-11-23T063000Z"),
        ("2026-11-23T063000Z", "2026-11-23T063000Z"),
        ("2026-11-23T06:30:00.000250+00:00", "2026-11-23T063000.000250Z"),
        ("2026-11-23T063000.000250Z", "2026-11-23T063000.000250Z"),
    ],
)
def test_an_instant_has_one_form_in_whatever_zone_it_is_written(written: str, form: str) -> None:
    assert interval_of(written) == form


@pytest.mark.parametrize("written", ["", "today", "2026-11", "2026-02-30", "2026-11-23/2026-11-30", "1", "{{ ds }}"])
def test_what_is_no_start_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"is no interval's start as ISO 8601; give its start, e\.g\. 2026-11-23"):
        interval_of(written)


def test_the_runs_seed_is_of_seed_and_interval() -> None:
    assert seed_of(7, None) == 7
    seeds = {seed_of(seed, day) for seed in (0, 1) for day in ("2026-11-23", "2026-11-30")}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "2026-11-23") == 3509188257734430522  # or last week would not come out again


def test_it_stands_in_places_and_is_the_day_that_templates_read(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "2026-11-23.jsonl").write_text('{"prompt": "Hi"}\n')
    job = desk.load("interval=2026-11-23T00:00Z", "output=out/{interval}", "prompts.file='{interval}.jsonl'")
    assert job.interval == "2026-11-23" and job.output_folder == tmp_path / "out" / "2026-11-23"
    assert [prompt.messages[0].content for prompt in job.load_prompts()] == ["Hi"]
    assert job.day == "2026-11-23" and job.changed(model={"id": job.model.id, "date": "2026-01-01"}).day == "2026-01-01"
    plain = desk.load()
    assert (plain.interval, plain.day, plain.run_seed) == (None, None, 0)
    assert job.work_hash() != plain.work_hash()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("interval=2026-11-23",), "output: 'out/entj-demo' lacks {interval}: texts of all intervals would be in one"),
        (("output=out/{interval}",), "output: 'out/{interval}' names the job's interval, and it has none; give one"),
        (("prompts.file='{interval}.jsonl'",), "prompts.file: '{interval}.jsonl' names the job's interval, and it has"),
        (("interval=soon", "output=o/{interval}"), "interval: 'soon' is no interval's start as ISO 8601"),
        (("interval=20261123", "output=o/{interval}"), "interval: "),
    ],
)
def test_an_interval_that_can_not_be_right_is_one_line(overrides: tuple[str, ...], line: str, tmp_path: Path) -> None:
    assert Desk(tmp_path).line(*overrides).startswith(line)
