"""The timer, the cron line, the script that they call, and the workflow of GitHub: as their own programs read them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from pipeline.exit_status import ExitStatus

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SYSTEMD = WORKFLOWS / "systemd"
SCRIPT = SYSTEMD / "mpg-corpus.sh"
# A stand-in for `mpg`: notes its words, and ends as the file ENDS says, a status a line, then with 0.
MPG = """#!{python}
import json, pathlib, sys
words, folder = sys.argv[1:], pathlib.Path("{folder}")
with (folder / "calls").open("a") as calls:
    print(*words, file=calls)
ends = (folder / "ends").read_text().split()
status, rest = (int(ends[0]), ends[1:]) if ends else (0, [])
(folder / "ends").write_text(" ".join(rest))
print("not the last line")
problem = "threshold a\\nthreshold b" if status else None
print(json.dumps(dict(stage=words[0], status=status, output="out/a b", interval="2026-11-16", problem=problem)))
sys.exit(status)
"""


class Script:
    """The script over the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mpg").write_text(MPG.format(python=sys.executable, folder=folder))
        (folder / "mpg").chmod(0o755)
        (folder / "job.yaml").touch()
        (folder / "corpus.env").write_text(
            f"MPG_JOB=job.yaml\nMPG_COMMAND={folder}/mpg\nMPG_FOLDER={folder}\nMPG_REPO_ID=me/x\nMPG_TRIES=3\n"
            f"MPG_PAUSE_S=0\nMPG_ALERT='echo told:'\n"
        )

    def __call__(self, *words: str, ends: str = "", settings: str = "") -> subprocess.CompletedProcess[str]:
        """Run it; the stand-in's next calls end with these statuses."""
        (self.folder / "ends").write_text(ends)
        (self.folder / "calls").write_text("")
        with (self.folder / "corpus.env").open("a") as file:
            file.write(settings)
        command = [SCRIPT, self.folder / "corpus.env", *words]
        return subprocess.run(command, text=True, capture_output=True, timeout=60, cwd=self.folder)

    @property
    def calls(self) -> list[str]:
        """Commands, without what ends each."""
        lines = (self.folder / "calls").read_text().splitlines()
        assert all(line.endswith("--json") for line in lines)
        return [line.partition(" --interval")[0] for line in lines]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_the_script_goes_through_all_stages_of_an_interval(script: Script) -> None:
    done = script("2026-11-16")
    assert done.returncode == 0 and "told:" not in done.stdout, done
    assert script.calls == [
        "plan job.yaml --no-pilot",
        "run job.yaml --only decode",
        "run job.yaml --only judge",
        "report out/a b",
        "gate out/a b --against me/x@previous",
        "publish out/a b --repo-id me/x --private",
    ]
    assert (script.folder / "calls").read_text().count("--interval 2026-11-16 --json") == 6


def test_the_script_tries_again_what_may_help_and_nothing_else(script: Script) -> None:
    done = script("2026-11-16", ends="0 75 75")
    assert done.returncode == 0 and script.calls.count("run job.yaml --only decode") == 3
    done = script("2026-11-16", ends="0 75 75 75 75")
    assert done.returncode == ExitStatus.TRY_AGAIN and len(script.calls) == 4
    done = script("2026-11-16", ends=f"0 0 0 0 {int(ExitStatus.REFUSED)}")
    assert done.returncode == ExitStatus.REFUSED and script.calls[-1].startswith("gate")
    done = script("2026-11-16", settings="MPG_REPO_ID=\n")
    assert done.returncode == 0 and script.calls[-1] == "gate out/a b"  # absolute thresholds, and nothing to publish


def test_one_sigterm_reaches_the_stage_which_is_waited_for(script: Script) -> None:
    (script.folder / "mpg").write_text(f"""#!{sys.executable}
import json, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: None)
pathlib.Path("begun").touch()
signal.pause()
time.sleep(0.3)  # rows in flight
pathlib.Path("finished").touch()
print(json.dumps(dict(status=130, problem="stopped")))
sys.exit(130)
""")
    command = [SCRIPT, script.folder / "corpus.env", "2026-11-16"]
    run = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=script.folder)
    while not (script.folder / "begun").exists():
        assert run.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)  # the stand-in waits for its signal
    run.terminate()
    out, err = run.communicate(timeout=30)
    assert run.returncode == ExitStatus.INTERRUPTED and (script.folder / "finished").exists(), (out, err)
    assert err.splitlines()[-1].endswith("plan ended with exit status 130: stopped")


def test_the_gate_is_asked_whatever_is_published(script: Script) -> None:
    done = script("2026-11-16", settings="MPG_REPO_ID=\nMPG_AGAINST='last week'\n", ends="0 0 0 0 6")
    assert done.returncode == ExitStatus.REFUSED and script.calls[-1] == "gate out/a b --against last week"
    script("2026-11-16", settings="MPG_REPO_ID=me/x\n")
    assert script.calls[-2:] == ["gate out/a b --against last week", "publish out/a b --repo-id me/x --private"]


@pytest.mark.parametrize("n", range(6))
def test_an_alert_has_stage_exit_status_and_reason(script: Script, n: int) -> None:
    """In one line, which is the last that is printed: cron mails that one."""
    done = script("2026-11-16", ends="0 " * n + "6")
    stage = ("plan", "decode", "judge", "report", "gate", "publish")[n]
    line = f"corpus of job.yaml, interval 2026-11-16: {stage} ended with exit status 6: threshold a; threshold b"
    assert f"told: {line}" in done.stdout.splitlines() and done.stderr.splitlines()[-1] == line


def test_an_alert_of_a_command_that_says_nothing(script: Script) -> None:
    done = script("2026-11-16", settings="MPG_COMMAND=/nowhere/mpg\nMPG_ALERT=/nowhere/alert\n")
    line = "corpus of job.yaml, interval 2026-11-16: plan ended with exit status 127: its log says why"
    assert done.returncode == 127 and done.stderr.splitlines()[-1] == line and "alert was not sent" in done.stderr


def test_the_script_runs_a_job_once_at_a_time(script: Script) -> None:
    """However it is written; a job of the same name in another folder is another."""
    below = script.folder / "below"
    below.mkdir()
    (below / "job.yaml").touch()
    (script.folder / "link.yaml").symlink_to("job.yaml")
    with (script.folder / ".job.yaml.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        spelled = [f"MPG_JOB={each}\n" for each in ("job.yaml", "./below/../job.yaml", script.folder / "job.yaml",
                                                     "link.yaml")]  # fmt: skip
        for settings in (*spelled, f"MPG_FOLDER={below}\nMPG_JOB=../job.yaml\nTMPDIR={below}\n"):
            done = script("2026-11-16", settings=settings)
            assert done.returncode == ExitStatus.TRY_AGAIN and script.calls == [], settings
            assert "lock ended with exit status 75: a run of this job is at work" in done.stderr
        done = script("2026-11-16", settings="MPG_JOB=job.yaml\n")
        assert done.returncode == 0, done
    assert script("2026-11-16", settings=f"MPG_JOB=gs://b/j.yaml\nMPG_LOCK={below}/lock\n").returncode == 0
    assert (below / "lock").exists()


@pytest.mark.parametrize(
    ("period", "today", "start"),
    [
        ("week", "2026-11-23", "2026-11-16"),  # a Monday
        ("week", "2026-11-29", "2026-11-16"),  # the Sunday after it
        ("day", "2026-03-01", "2026-02-28"),
        ("month", "2026-03-31", "2026-02-01"),
        ("month", "2026-01-01", "2025-12-01"),
    ],
)
def test_the_interval_is_the_last_whole_one(script: Script, period: str, today: str, start: str) -> None:
    """``date`` says that it is another day."""
    real = shutil.which("date")
    fake = (
        f'#!{sys.executable}\nimport os, sys\nwords = [w if w != "yesterday" else "-1 day" for w in sys.argv[1:]]\n'
        f'if "-d" in words and not words[words.index("-d") + 1][0].isdigit():\n'
        f'    words[words.index("-d") + 1] = "{today} " + words[words.index("-d") + 1]\n'
        f'elif "-d" not in words:\n    words += ["-d", "{today}"]\nos.execv("{real}", ["date", *words])\n'
    )
    (script.folder / "date").write_text(fake)
    (script.folder / "date").chmod(0o755)
    script(ends="1", settings=f"MPG_PERIOD={period}\nPATH={script.folder}:$PATH\n")
    assert f"--interval {start} --json" in (script.folder / "calls").read_text()


def test_wrong_settings_are_said_before_anything_is_started(script: Script) -> None:
    done = script(settings="MPG_PERIOD=year\n")
    assert done.returncode == ExitStatus.BAD_INPUT and "MPG_PERIOD=year: choose from day, week, month" in done.stderr
    assert "told: corpus of job.yaml, interval not known: start ended with" in done.stdout
    for settings, words in (
        ("MPG_JOB=none.yaml", "MPG_JOB=none.yaml: no file in"),
        ("MPG_FOLDER=/nowhere", "MPG_FOLDER=/nowhere: is no folder"),
        ("MPG_JOB=", "MPG_JOB: is missing"),
        ("MPG_FOLDER=/tmp\nMPG_JOB=gs://b/j.yaml\nMPG_LOCK=/nowhere/lock", "/nowhere/lock: can't be written"),
    ):
        done = script("2026-11-16", settings=f"{settings}\n")
        assert done.returncode == ExitStatus.BAD_INPUT and words in done.stderr.splitlines()[-1], done
    assert subprocess.run([SCRIPT], capture_output=True).returncode == ExitStatus.BAD_INPUT


def test_systemd_takes_service_and_timer(tmp_path: Path) -> None:
    """Where it is; else they are read as the files that they are."""
    root = str(WORKFLOWS.parent)
    for name in ("mpg-corpus@.service", "mpg-corpus@.timer"):
        text = (SYSTEMD / name).read_text().replace("/opt/mpg", root)
        (tmp_path / name).write_text(text)
        read = ConfigParser(strict=True, interpolation=None)
        read.optionxform = str  # type: ignore[assignment,method-assign]
        read.read_string(text)
        if name.endswith("service"):
            service = read["Service"]
    assert (WORKFLOWS.parent / Path(service["ExecStart"].split()[0]).relative_to(root)).is_file()
    kept = {int(each) for each in service["RestartPreventExitStatus"].split()}
    again = {ExitStatus.TRY_AGAIN, ExitStatus.INTERRUPTED, ExitStatus.DONE}
    assert kept == {int(each) for each in ExitStatus} - again and service["Restart"] == "on-failure"
    if shutil.which("systemd-analyze"):
        units = [str(tmp_path / name) for name in ("mpg-corpus@.service", "mpg-corpus@.timer")]
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr.strip(), done.stderr


def test_the_cron_line_is_one(tmp_path: Path) -> None:
    lines = [line for line in (SYSTEMD / "mpg-corpus.cron").read_text().splitlines() if line and line[0] != "#"]
    assignments, (job,) = lines[:-1], lines[-1:]
    assert all(re.fullmatch(r"[A-Z_]+=\S*", line) for line in assignments)
    assert "%" not in job  # cron's newline
    *when, user, command = job.split(None, 6)[:7]
    assert all(re.fullmatch(r"[\d*/,-]+", each) for each in when) and len(when) == 5 and user == "mpg"
    script = command.split()[0].replace("/opt/mpg", str(WORKFLOWS.parent))
    assert os.access(script, os.X_OK)


def test_the_settings_file_names_what_the_script_reads() -> None:
    named = set(re.findall(r"^(\w+)=", (SYSTEMD / "corpus.env").read_text(), flags=re.M)) - {"HF_TOKEN"}
    assert {"MPG_AGAINST", "MPG_LOCK"} < named <= set(re.findall(r"\bMPG_[A-Z_]+\b", SCRIPT.read_text()))


def test_github_takes_the_workflow() -> None:
    """Its steps call what is there; tests/test_linters.py has actionlint look at it."""
    file = WORKFLOWS / "github" / "mpg-corpus.yml"
    workflow = yaml.safe_load(file.read_text())
    (job,) = workflow["jobs"].values()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert {"MPG_REPO_ID='$REPO_ID'", "MPG_AGAINST='$AGAINST'"} <= set(commands.split()) and "AGAINST" in job["env"]
    assert "workflows/systemd/mpg-corpus.sh" in commands and workflow["permissions"] == {"contents": "read"}
    assert not re.search(r"\$\{\{", commands)  # what a person types never becomes part of a command
