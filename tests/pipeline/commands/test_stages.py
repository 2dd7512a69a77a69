"""Stages of a schedule: each by itself, given again, in the wrong order, for one interval and the next."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import _parser, main
from pipeline.exit_status import ExitStatus
from tests.tiny_job import checksums, rows, write_job, write_prompts

Said = pytest.CaptureFixture[str]


def said(capsys: Said, *words: object, status: int = 0) -> dict[str, Any]:
    """What a command says to programs."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == status
    found = dict(json.loads(capsys.readouterr().out))
    assert found["status"] == status and (found["problem"] is None) == (status == 0)
    return found


@pytest.fixture
def weekly(job_file: Path) -> Path:
    write_prompts(job_file.parent, ("hello you",))
    return write_job(job_file.parent, output="out/{interval}")


def test_stages_are_the_run_in_parts_and_may_be_repeated(weekly: Path, capsys: Said) -> None:
    week = ("--interval", "2026-11-23")
    out = weekly.parent / "out" / "2026-11-23"
    common = {"output": str(out), "interval": "2026-11-23", "job": "tiny"}
    planned = said(capsys, "plan", weekly, "--no-pilot", *week)
    assert planned | common == planned and (planned["stage"], planned["to_decode"], planned["there"]) == ("plan", 4, 0)
    refused = said(capsys, "run", weekly, *week, "--only", "judge", status=ExitStatus.BAD_INPUT)
    assert refused["stage"] == "judge" and refused | common == refused
    assert "4 of 4 rows are not decoded; give mpg run --only decode first" in refused["problem"]
    for new in (4, 0):
        decoded = said(capsys, "run", weekly, *week, "--only", "decode")
        assert (decoded["stage"], decoded["rows"], decoded["generated"], decoded["complete"]) == (
            "decode",
            4,
            new,
            False,
        )
        assert not (out / "data").exists() and not list((out / ".work" / "judgments").glob("*.parquet"))
    again = said(capsys, "plan", weekly, "--no-pilot", *week)
    assert (again["to_decode"], again["there"], again["to_judge"], again["hash"]) == (0, 4, 4, planned["hash"])
    for _ in range(2):
        judged = said(capsys, "run", weekly, *week, "--only", "judge")
        assert judged | common == judged and judged["complete"] and (judged["rows"], judged["generated"]) == (4, 0)
        assert judged["judgments"] == len(rows(out, "judgments")) > 0
    state = said(capsys, "status", weekly.parent / "out" / "{interval}", *week)
    assert (state["output"], state["interval"], state["rows"]) == (str(out), "2026-11-23", 4)
    assert said(capsys, "status", out)["interval"] == "2026-11-23"
    in_parts = checksums(out)
    said(capsys, "run", weekly, *week, "--output", weekly.parent / "whole")
    assert checksums(weekly.parent / "whole") == in_parts
    said(capsys, "run", weekly, *week, "--only", "decode")  # of a data set that is whole: it stays
    assert checksums(out) == in_parts


def test_the_next_stage_s_command_is_whole_and_works_as_it_stands(weekly: Path, capsys: Said) -> None:
    words = ["--set", "decoder.max_new_tokens=4", "--interval", "2026-11-23"]
    assert main(["run", str(weekly), *words, "--only", "decode"]) == 0
    command = shlex.split(capsys.readouterr().out.split("; ")[1].partition(" scores them")[0])
    assert command[0] == "mpg" and main(command[1:]) == 0
    assert len(rows(weekly.parent / "out" / "2026-11-23")) == 4


def test_what_is_wrong_before_a_command_begins_is_in_the_last_line_too(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last(*words: str) -> str:
        assert main(["gate", str(tmp_path), *words]) == ExitStatus.BAD_INPUT
        return str(json.loads(capsys.readouterr().out)["problem"])

    assert last("--json", "--", "--foo") == "gate: takes no options after --; remove --foo"
    monkeypatch.setenv("MPG_LOG", "foo")
    assert last("--json") == "MPG_LOG=foo: choose from text, json"


def test_an_interval_is_another_corpus_and_comes_out_the_same_again(weekly: Path, capsys: Said) -> None:
    def ids(interval: str, output: str) -> list[str]:
        place = weekly.parent / output
        said(capsys, "run", weekly, "--interval", interval, "--output", place, "--set", "judges=[]")
        return [row["row_id"] for row in rows(place)]

    first, second = ids("2026-11-23", "a"), ids("2026-11-30", "b")
    assert not set(first) & set(second)
    assert ids("2026-11-23T01:00+01:00", "c") == first and checksums(weekly.parent / "a") == checksums(
        weekly.parent / "c"
    )
    assert "seed 0, interval 2026-11-23." in (weekly.parent / "a" / "README.md").read_text()
    said(capsys, "verify", weekly.parent / "a", "--sample", "2")
    said(capsys, "run", weekly.parent / "a" / "job.json")  # a record goes on in its own folder
    assert [row["row_id"] for row in rows(weekly.parent / "a")] == first


def test_no_folder_comes_to_hold_two_intervals(weekly: Path, capsys: Said) -> None:
    place = ("--output", weekly.parent / "one", "--set", "judges=[]")
    said(capsys, "run", weekly, "--interval", "2026-11-23", *place)
    for words in (["run", "--interval", "2026-11-30"], ["plan", "--no-pilot", "--interval", "2026-11-30"], ["run"]):
        found = said(capsys, words[0], weekly, *words[1:], *place, status=ExitStatus.BAD_INPUT)
        assert "holds rows of the interval 2026-11-23, and this job's is" in found["problem"]
    (weekly.parent / "one" / ".work" / "interval").unlink()  # the record says it, too
    found = said(capsys, "run", weekly, "--interval", "2026-11-30", *place, status=ExitStatus.BAD_INPUT)
    assert "holds rows of the interval 2026-11-23" in found["problem"]
    plain = write_job(weekly.parent, output="plain", judges=[])
    said(capsys, "run", plain)
    found = said(capsys, "run", plain, "--interval", "2026-11-30", "--output", weekly.parent / "plain", status=2)
    assert "holds rows of no interval, and this job's is 2026-11-30" in found["problem"]


def test_intervals_given_twice_or_nowhere_are_one_line(weekly: Path, capsys: Said) -> None:
    found = said(capsys, "plan", weekly, "--interval", "2026-11-23", "--set", "interval=2026-11-30", status=2)
    assert "interval: given by --set and by --interval; give one" in found["problem"]
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(weekly), "--interval", "2026-11-23", "--interval", "2026-11-30"])
    assert ended.value.code == 2 and "2026-11-23 and 2026-11-30 are given; give one" in capsys.readouterr().err
    found = said(capsys, "status", weekly.parent / "{interval}", status=2)
    assert "names the interval, and none is given; give --interval 2026-11-23" in found["problem"]
    found = said(capsys, "run", weekly, "--only", "decode", status=2)
    assert "names the job's interval, and it has none" in found["problem"]


def test_each_of_several_problems_is_a_line(weekly: Path, capsys: Said) -> None:
    wrong = ("--set", "seed=x", "--set", "samples_per_cell=0")
    found = said(capsys, "plan", weekly, "--interval", "2026-11-23", *wrong, status=2)
    first, second = found["problem"].splitlines()
    assert first.startswith(f"{weekly}: samples_per_cell: 0 is out of range")
    assert second.startswith(f"{weekly}: seed: 'x' is text; give a whole number")


def test_where_all_rows_were_rejected_every_stage_says_so(weekly: Path, capsys: Said) -> None:
    write_prompts(weekly.parent, (" ",))
    out = weekly.parent / "none"
    write_job(weekly.parent, output="none", judges=[], max_rejected_fraction=1.0)
    assert said(capsys, "run", weekly, "--only", "decode")["rejected"] == 4
    assert main(["run", str(weekly)]) == 0
    printed = capsys.readouterr().out
    assert (
        f"has no texts: all rows were rejected, and {out / 'rejected'} says why" in printed and "open it" not in printed
    )
    why = "all 4 rows were rejected, and rejected/ says why"
    assert said(capsys, "report", out, status=2)["problem"].startswith(f"{out}: holds no texts: {why}; mend ")
    found = said(capsys, "gate", out, status=ExitStatus.REFUSED)
    assert found["problem"] == f"{out}: not to be published: it has no texts: {why}"


def test_what_can_not_be_run_in_stages_is_one_line(weekly: Path, capsys: Said) -> None:
    accept = "accept={min_score: 0.1, rows_per_cell: 1, max_candidates: 2}"
    found = said(capsys, "run", weekly, "--interval", "2026-11-23", "--only", "decode", "--set", accept, status=2)
    assert (
        "accept: what is drawn next depends on what judges say of the last; leave --only decode out" in found["problem"]
    )
    found = said(capsys, "run", weekly, "--interval", "2026-11-23", "--only", "decode", "--detach", status=2)
    assert "to decode and to judge at once; leave --only decode out" in found["problem"]


def test_a_plan_that_has_grown_is_decoded_before_it_is_judged(weekly: Path, capsys: Said) -> None:
    week = ("--interval", "2026-11-23", "--set", "judges=[{kind: persona-match}]")
    for stage in ("decode", "judge"):
        said(capsys, "run", weekly, *week, "--only", stage)
    write_prompts(weekly.parent, ("hello you", "what now?"))
    found = said(capsys, "run", weekly, *week, "--only", "judge", status=ExitStatus.BAD_INPUT)
    assert "4 of 8 rows are not decoded" in found["problem"]
    assert said(capsys, "run", weekly, *week, "--only", "decode")["generated"] == 4
    out = weekly.parent / "out" / "2026-11-23"
    assert len(rows(out)) == 4  # until it is judged
    assert said(capsys, "run", weekly, *week, "--only", "judge")["rows"] == len(rows(out)) == 8


def test_decoding_asks_for_no_keys(weekly: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judges = "judges=[{kind: openai, model: m}]"
    week = ("--interval", "2026-11-23", "--set", judges)
    assert said(capsys, "run", weekly, *week, "--only", "decode")["rows"] == 4
    assert "OPENAI_API_KEY" in said(capsys, "run", weekly, *week, "--only", "judge", status=2)["problem"]


def test_a_shard_that_breaks_between_the_stages_is_decoded_again(weekly: Path, capsys: Said) -> None:
    week = ("--interval", "2026-11-23", "--set", "judges=[{kind: persona-match}]")
    said(capsys, "run", weekly, *week, "--only", "decode")
    (shard,) = (weekly.parent / "out" / "2026-11-23" / ".work" / "generations").glob("*.parquet")
    content = shard.read_bytes()
    shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    found = said(capsys, "run", weekly, *week, "--only", "judge", status=ExitStatus.BAD_INPUT)
    assert "4 of 4 rows are not decoded" in found["problem"]
    assert said(capsys, "run", weekly, *week, "--only", "decode")["generated"] == 4
    assert said(capsys, "run", weekly, *week, "--only", "judge")["rows"] == 4


def test_no_option_of_a_command_is_overwritten_by_a_stage_s() -> None:
    """As `mpg judge --known` was by what a stage knows of its job."""
    (commands,) = [each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction)]
    for name, command in commands.choices.items():
        dests = [action.dest for action in command._actions]
        assert not {"place", "fills", "of_job"} & set(dests), name
