"""Judges behind endpoints asked range by range: the data set, calls and ending of the way by the ids of all rows."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.run import asking
from pipeline.store.ranges import parsed
from pipeline.store.stop import StopFile
from tests.judge_server import JudgeServer, Reply, Script, good, refuses, says, serving, status
from tests.pipeline.run.test_by_range import by_id, names
from tests.run_process import finished, log_of, start, wait_for
from tests.tiny_job import checksums, make_job, rows, write_job

PROMPTS = ("hello you", "what now?", "", "tell me more", "say it")  # one is a dead letter in each cell
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server() -> JudgeServer:
    return JudgeServer()


@pytest.fixture
def url(server: JudgeServer) -> Iterator[str]:
    with serving(server) as url:
        yield url


def job_of(folder: Path, url: str, **settings: Any) -> Path:
    """20 cells in ranges of five, asked about one at a time, so that the order of the calls is the plan's."""
    judges = [{"kind": "classifier"}, {"kind": "openai", "model": "m", "base_url": url, "in_flight": 1, **settings}]
    changes = {"judges": judges, "max_rejected_fraction": 0.5}
    if not (folder / "base").exists():
        return make_job(folder, PROMPTS, **changes)
    return write_job(folder, **changes)


def run(job_file: Path, output: str, *more: str) -> int:
    return main(["run", str(job_file), "--output", str(job_file.parent / output), *more])


def rows_in(folder: Path, name: str) -> int:
    """How many judgments of the endpoint's judge a file has."""
    table = pq.read_table(folder / "out" / ".work" / "judgments" / name)
    return 0 if table.column("judge")[0].as_py().startswith("classifier") else table.num_rows


def some(text: str) -> int:
    """A number of a text, the same on every machine."""
    return sum(text.encode())


def odd_answers(text: str, n: int) -> Reply:
    """Answers, refusals of a model and of the server, and words that are no grades."""
    odd = [{}, says(None, refusal="no"), says("I like it."), refuses(400, {"error": {"message": "too rude"}})]
    return dict(odd[some(text) % 4])


def cut_off() -> Script:
    """From its ninth call on the key is dead."""
    calls = []

    def script(text: str, n: int) -> Reply:
        calls.append(text)
        return {} if len(calls) < 9 else status(401)

    return script


CASES: dict[str, tuple[Callable[[], Script], dict[str, Any], tuple[str, ...]]] = {
    "answers": (lambda: good, {"in_flight": 8}, ()),
    "no answers": (lambda: odd_answers, {}, ()),
    "no answers that may be": (lambda: odd_answers, {}, ("--set", "max_unscored_fraction=1")),
    "breaker": (cut_off, {}, ()),
    "judge's budget": (lambda: good, {"prompt_price": 1000.0, "budget": 1.6}, ()),
    "job's budget": (lambda: good, {"prompt_price": 1000.0}, ("--budget", "1.6")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_data_set_is_the_one_by_the_ids_of_all_rows(
    case: str,
    tmp_path: Path,
    server: JudgeServer,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once, and once more by the same command, when the server answers and there is money."""
    script, settings, more = CASES[case]
    job_file = job_of(tmp_path, url, **settings)
    found = []
    for output in ("out", "other"):
        for again in (False, True):
            server.script = good if again else script()
            server.calls.clear()
            rich = {name: value for name, value in settings.items() if name != "budget"}
            code = run(job_of(tmp_path, url, **rich) if again else job_file, output, *(() if again else more))
            said = capsys.readouterr().err.strip().splitlines()
            last = [line.replace(f"{tmp_path}/{output}", "OUT") for line in said[-1:] if code]
            found.append((code, last, dict(server.calls), checksums(tmp_path / output)))
        by_id(monkeypatch)
        job_file = job_of(tmp_path, url, **settings)
    assert found[:2] == found[2:]
    assert found[1][0] == 0 and len(rows(tmp_path / "out")) == 16
    assert all(map(parsed, names(tmp_path / "out", "judgments")))
    assert not any(map(parsed, names(tmp_path / "other", "judgments")))
    assert len(names(tmp_path / "out", "judgments")) == 2 * len(names(tmp_path / "out"))  # a file of each judge


def test_what_is_all_scored_is_told_by_names(
    tmp_path: Path, server: JudgeServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_file = job_of(tmp_path, url)
    assert run(job_file, "out") == 0
    before, n = checksums(tmp_path / "out"), server.calls.total()
    monkeypatch.setattr(asking, "read_bytes", None)  # no file of rows
    shutil.rmtree(tmp_path / "out" / "data")
    assert run(job_file, "out") == 0
    assert checksums(tmp_path / "out") == before and server.calls.total() == n
    monkeypatch.undo()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    gone = names(tmp_path / "out", "judgments")
    for path in (tmp_path / "out" / ".work" / "judgments").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])  # all of them; answers are in the judge's cache
    assert run(job_file, "out") == 0
    assert names(tmp_path / "out", "judgments") == gone and server.calls.total() == n


def test_rows_that_are_damaged_are_made_and_judged_again(tmp_path: Path, server: JudgeServer, url: str) -> None:
    """Before they were judged: whoever asks leaves them to who puts the data set together."""
    job_file = job_of(tmp_path, url)
    assert run(job_file, "out") == 0
    before = checksums(tmp_path / "out")
    for name in names(tmp_path / "out", "judgments"):
        if rows_in(tmp_path, name):
            (tmp_path / "out" / ".work" / "judgments" / name).unlink()
    path = tmp_path / "out" / ".work" / "generations" / names(tmp_path / "out")[1]
    (path.parent / "manifest.jsonl").unlink()
    path.write_bytes(path.read_bytes()[:50] + b"????" + path.read_bytes()[54:])
    (tmp_path / "out" / ".work" / "judge-cache.sqlite").unlink()
    assert run(job_file, "out") == 0
    assert checksums(tmp_path / "out") == before and set(server.calls.values()) == {2}


@pytest.mark.parametrize("leaves_files", [False, True])
def test_after_a_stop_the_same_command_goes_on(
    leaves_files: bool, tmp_path: Path, server: JudgeServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was killed between the next file of what is said and the removal of the one before."""
    job_file, stop = job_of(tmp_path, url), StopFile.of(tmp_path / "out" / ".work")

    def asks_to_stop(text: str, n: int) -> Reply:
        if server.calls.total() in (3, 9):
            stop.request("enough")
            time.sleep(1.5)  # until it is seen
        return {}

    server.script = asks_to_stop
    if leaves_files:
        monkeypatch.setattr(asking, "remove", lambda path: None)
    for _ in range(2):
        assert run(job_file, "out") == 75
        lacking = [name for name in names(tmp_path / "out", "judgments") if rows_in(tmp_path, name) % 3]
        assert not lacking  # texts are judged by three attributes, or not
    assert 3 <= server.calls.total() < 16
    assert run(job_file, "out") == 0 and set(server.calls.values()) == {1}
    server.script = good
    by_id(monkeypatch)
    assert run(job_file, "other") == 0
    assert checksums(tmp_path / "out") == checksums(tmp_path / "other")


def test_a_work_folder_of_before_goes_on_by_ids(
    tmp_path: Path, server: JudgeServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_file, judge = job_of(tmp_path, url, prompt_price=1000.0), ("--budget", "1.6")
    with monkeypatch.context() as patch:
        by_id(patch)
        assert run(job_file, "out", *judge) == 3
    assert 0 < server.calls.total() < 16
    assert run(job_file, "out") == 0 and set(server.calls.values()) == {1}
    assert not any(map(parsed, names(tmp_path / "out", "judgments")))


@pytest.mark.long
def test_a_killed_run_asks_about_no_text_twice_that_was_answered(place: Path, tmp_path: Path) -> None:
    server = JudgeServer(delay_s=0.1)
    with serving(server) as url:
        judges = json.dumps([{"kind": "openai", "model": "m", "base_url": url, "in_flight": 2}])
        for n in (7, 30):
            running = start(place, tmp_path, "--set", f"judges={judges}")
            wait_for(lambda n=n: server.answered.total() >= n, "answers")  # type: ignore[misc]
            running.send_signal(signal.SIGKILL)
            finished(running)
        assert finished(start(place, tmp_path, "--set", f"judges={judges}")) == 0, log_of(tmp_path)
    judged = rows(tmp_path / "out", "judgments")
    assert len(judged) == 3 * 64 and {row["status"] for row in judged} <= {"ok", "failed"}
    assert sum(n - 1 for n in server.calls.values()) <= 2 * 2  # those in flight when it was killed
    assert all(map(parsed, names(tmp_path / "out", "judgments"))) and len(names(tmp_path / "out", "judgments")) == 16
