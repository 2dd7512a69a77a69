"""What the DAG's stages run, without Airflow: every command line is one that `mpg` takes."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.cli import _parser
from pipeline.exit_status import ExitStatus
from pipeline.job.interval import interval_of

FOLDER = Path(__file__).parents[2] / "workflows" / "airflow"
PARAMS: dict[str, Any] = {
    "job": "job.yaml",
    "set": ["seed=1", "decoder.strength=2"],
    "repo_id": "me/x",
    "private": True,
    "branch": None,
    "against": None,
    "budget": None,
}
PLANNED = {
    "job": "My corpus_of Ünïcode",
    "interval": "2026-11-23T063000Z",
    "hash": "EA1B50C986e43944",
    "output": "gs://b/o",
}


@pytest.fixture(scope="module")
def commands() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mpg_commands", FOLDER / "mpg_commands.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["mpg_commands"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "more", [{}, {"private": False, "branch": "b", "against": "out/last", "budget": 4.5, "set": []}]
)
def test_every_stage_is_a_command_line_of_mpg(commands: ModuleType, more: dict[str, Any]) -> None:
    lines = {}
    for stage in commands.STAGES:
        words = commands.words(stage, PARAMS | more, "2026-11-16T00:00:00+00:00", "out/2026-11-16")
        read = _parser().parse_args(words)  # ends the test where it is none
        assert read.json and read.interval == "2026-11-16"
        lines[stage] = " ".join(words)
    assert ("--set seed=1 --set decoder.strength=2" in lines["decode"]) == (not more)
    assert ("--budget 4.5" in lines["judge"]) == bool(more) and "--budget" not in lines["plan"]
    assert ("--against me/x@previous" in lines["gate"]) == (not more)
    assert ("--private" in lines["publish"]) == (not more) and ("--revision b" in lines["publish"]) == bool(more)
    for lost, end in ({"against": "out/last"}, ["--against", "out/last"]), ({}, []):  # of nothing on the Hub
        words = commands.words("gate", PARAMS | {"repo_id": None} | lost, "2026-11-16", "out/x")
        assert words == ["gate", "out/x", "--interval", "2026-11-16", *end, "--json"]
    with pytest.raises(ValueError, match="pack: no such stage; choose from plan, decode"):
        commands.words("pack", PARAMS, "2026-11-16")


def test_what_is_tried_again_and_refused_is_as_mpg_ends(commands: ModuleType) -> None:
    assert commands.TRY_AGAIN == (ExitStatus.TRY_AGAIN, ExitStatus.INTERRUPTED)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23",
        "2026-11-23T06",
        "2026-11-23T06:00",
        "2026-11-23 06:00Z",
        "2026-11-23T063000Z",
        "2026-11-23T06:00:30.250000+01:00",
    ],
)
def test_an_interval_may_be_a_date_or_an_instant(commands: ModuleType, text: str) -> None:
    assert re.search(commands.INTERVAL, text) and interval_of(text).startswith("2026-11-23")


@pytest.mark.parametrize(
    "text", ["", "today", "2026-11", "23.11.2026", "2026-11-23T", "2026-11-23T06:00 CET", "20261123"]
)
def test_other_words_are_no_interval(commands: ModuleType, text: str) -> None:
    assert not re.search(commands.INTERVAL, text)


def test_a_job_on_dataflow_has_a_name_of_its_work_alone(commands: ModuleType) -> None:
    name = commands.job_name(PLANNED)
    assert name == "mpg-my-corpus-of--n-code-2026-11-23t063000z-ea1b50c9"
    long = commands.job_name(PLANNED | {"job": "x" * 90})
    assert len(long) == 63 and long.endswith("-2026-11-23t063000z-ea1b50c9")
    for each in (name, long):
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", each)  # Dataflow's own rule for names
    assert commands.job_name(PLANNED | {"hash": "0" * 16}) != name


def test_what_dataflow_is_asked_for(commands: ModuleType) -> None:
    settings = {
        "template": "gs://b/t.json",
        "parameters": {"accelerator": "a", "job": "?"},
        "environment": {"maxWorkers": 2},
    }
    (asked,) = commands.launch_body(PLANNED, PARAMS | {"budget": 40}, settings).values()
    assert asked["jobName"] == commands.job_name(PLANNED) and asked["environment"] == {"maxWorkers": 2}
    given = {"job": "job.yaml", "output": "gs://b/o", "interval": PLANNED["interval"], "accelerator": "a"}
    assert asked["parameters"] == given | {"set": "seed=1;decoder.strength=2", "budget": "40"}
    template = FOLDER.parent / "dataflow" / "metadata.json"
    if template.exists():
        known = {each["name"] for each in json.loads(template.read_text())["parameters"]}
        assert set(asked["parameters"]) <= known
    with pytest.raises(ValueError, match="set: a=b;c: a semicolon"):
        commands.launch_body(PLANNED, PARAMS | {"set": ["a=b;c"]}, settings)


def test_a_command_is_run_to_its_last_line(
    commands: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"stage": "plan", "status": 2, "problem": "job.yaml: seed: no"}
    (tmp_path / "mpg").write_text(
        f"#!/bin/sh\necho '{{}}'; echo out; echo err >&2; echo '{json.dumps(line)}'; env; exit 2\n"
    )
    (tmp_path / "mpg").chmod(0o755)
    monkeypatch.setenv("MPG_COMMAND", f"{tmp_path}/mpg --verbose")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "a secret of the scheduler's")
    said: list[str] = []
    command = commands.Command(["plan", "a b.yaml"], said.append)
    assert command.run() == 2 and command.line == line
    assert command.why(2) == "mpg plan: exit status 2: job.yaml: seed: no"
    assert said[0] == f"$ {tmp_path}/mpg --verbose plan 'a b.yaml'" and {"out", "err"} <= set(said)
    assert not any("secret" in each for each in said)
    monkeypatch.setenv("MPG_FOLDER", str(tmp_path / "none"))
    with pytest.raises(OSError):
        command.run()


def test_a_task_that_is_killed_lets_the_command_finish(commands: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(130)); print('on', flush=True); time.sleep(60)"
    )
    monkeypatch.setenv("MPG_COMMAND", f'{sys.executable} -c "{code}"')
    command = commands.Command([], lambda text: command.stop() if text == "on" else None)
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(command.run()))
    thread.start()
    thread.join(30)
    assert ended == [ExitStatus.INTERRUPTED]
    assert commands.Command(["run"], print).why(-signal.SIGKILL).startswith("mpg run: signal SIGKILL")
