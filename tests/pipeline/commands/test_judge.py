"""``mpg judge`` from the command line: any corpus, any judge, stopped and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.store.schema import JUDGMENTS
from tests.evaluation.judges.test_pairwise import Comparing
from tests.judge_server import JudgeServer, says, serving, status
from tests.tiny_job import make_job

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A foreign file: 40 texts, two of them the same."""
    rows = [{"prompt": f"q{i % 5}", "text": f"text {i} is {'bold' if i % 2 else 'plain'}"} for i in range(39)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return path


def judged(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "judgments").glob("*.parquet"))
    assert all(pq.read_schema(file).equals(JUDGMENTS) for file in files)
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def remote(url: str, *more: str) -> list[str]:
    return ["--judge", "openai", "--base-url", url, "--model", "scripted", *more]


def test_a_foreign_file_is_judged_behind_an_endpoint(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(JudgeServer()) as url:
        command = ["judge", str(corpus), "--column", "text", "--attributes", "bold=Speaks boldly.", *remote(url)]
        assert main(command) == 0
        printed = capsys.readouterr()
        rows = judged(tmp_path / "corpus-judgments")
        assert len(rows) == 39 * 2  # equal texts once; fluency beside the attribute
        assert Counter(row["score"] for row in rows if row["attribute"] == "bold") == {0.0: 20, 1.0: 19}
        assert "39 calls, 3900 + 390 tokens" in printed.out and "39 of them judged now" in printed.out
        assert main(command) == 0
        assert "0 calls" in capsys.readouterr().out  # nothing is asked twice
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in everything and KEY not in printed.out + printed.err


def test_what_failed_is_asked_again_and_replaced(corpus: Path, tmp_path: Path) -> None:
    command = ["judge", str(corpus), "--column", "text", "--attributes", "bold=Speaks boldly."]
    with serving(JudgeServer(lambda text, n: status(422) if "plain" in text else {})) as url:
        assert main([*command, *remote(url)]) == 5
    rows = judged(tmp_path / "corpus-judgments")
    assert Counter(row["status"] for row in rows) == {"failed": 40, "ok": 38}
    assert all(row["score"] is None and "422" in row["rationale"] for row in rows if row["status"] == "failed")
    assert KEY not in str(rows)
    server = JudgeServer()
    with serving(server) as url:
        assert main([*command, *remote(url)]) == 0
    rows = judged(tmp_path / "corpus-judgments")
    assert Counter(row["status"] for row in rows) == {"ok": 78}
    assert sum(server.calls.values()) == 20


@pytest.mark.long
def test_a_judge_that_is_stopped_goes_on(corpus: Path, tmp_path: Path) -> None:
    """Ctrl-C, then kill -9, in the middle of the work: no text lost, none asked twice once answered."""
    server = JudgeServer(delay_s=0.15)
    with serving(server) as url:
        command = ["judge", str(corpus), "--column", "text", "--attributes", "bold=Speaks boldly."]
        command += remote(url, "--in-flight", "2")
        for how, enough in ((signal.SIGINT, 8), (signal.SIGKILL, 20)):
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", *command],
                stderr=subprocess.PIPE,
                env=os.environ,
                # Where the tests run in the background of a script, Ctrl-C is ignored, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            deadline = time.monotonic() + 60
            while server.answered.total() < enough and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(how)
            _, said = process.communicate(timeout=30)
            if how == signal.SIGINT:
                assert process.returncode == 130 and b"the same command goes on from what is judged" in said
        assert main(command) == 0
    assert len(judged(tmp_path / "corpus-judgments")) == 78
    # What was on its way when the process ended may be asked once more: two calls in flight, twice stopped.
    assert sum(n - 1 for n in server.answered.values()) <= 4 and len(server.answered) == 39


def test_a_budget_ends_the_command_with_what_it_has(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(JudgeServer()) as url:
        prices = ["--budget", "5", "--prompt-price", "1000", "--completion-price", "1000", "--in-flight", "1"]
        command = ["judge", str(corpus), "--column", "text", "--attributes", "bold=Speaks boldly."]
        assert main([*command, *remote(url, *prices)]) == 3
    assert "the budget of 5 is spent; the same command asks for the rest" in capsys.readouterr().err
    statuses = Counter(row["status"] for row in judged(tmp_path / "corpus-judgments"))
    assert statuses["ok"] > 0 and statuses["failed"] > 0 and statuses.total() == 78


def test_the_embedded_judge_on_a_foreign_file_and_on_known_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = "I love big parties, meeting people and talking all night with my friends!"
    quiet = "I stay at home alone with a book, quietly, and think about things by myself."
    table = pa.table({"prompt": ["a", "b", "c"], "response": [loud, quiet, " ... "]})
    pq.write_table(table, tmp_path / "c.parquet")
    pairs = [{"prompt": f"q{i}", "chosen": loud, "rejected": quiet} for i in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    turned = [{"prompt": p["prompt"], "chosen": p["rejected"], "rejected": p["chosen"]} for p in pairs]
    (tmp_path / "turned.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in turned))
    command = ["judge", str(tmp_path / "c.parquet"), "--attributes", "E", "I"]
    assert main([*command, "--known", "E", str(tmp_path / "pairs.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "(1 unscored)" in printed and "known pairs of E: ranked 1.000" in printed and "FLOOR" not in printed
    rows = {(row["attribute"], row["row_id"]): row["score"] for row in judged(tmp_path / "c-judgments")}
    assert len(rows) == 6 and sum(score is None for score in rows.values()) == 2
    assert main([*command, "--known", "E", str(tmp_path / "turned.jsonl")]) == 0
    assert "WORSE THAN THE FLOOR: do not rely on this judge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.parquet"], "no.parquet: no such file or folder; give one, or the folder of a data set"),
        (["{tmp}"], "has no data/*.parquet"),
        (["{corpus}"], "has no column 'response' (columns: prompt, text); name the text's with --column"),
        (["{corpus}", "--column", "text"], "--attributes: none given, and the corpus names none"),
        (["{corpus}", "--column", "text", "--attributes", "Q"], "the judge 'classifier' does not know Q"),
        (["{corpus}", "--column", "text", "--attributes", "E", "E"], "--attributes E: 'E' is given twice"),
        (["{corpus}", "--column", "text", "--attributes", "E", "--abstain", ".5"], "--abstain: 0.5 is out of range"),
        (["{corpus}", "--column", "text", "--attributes", "E", "--known", "E", "no.jsonl"], "no.jsonl: no such file"),
        (["{corpus}", "--column", "text", "--attributes", "E", "--judge", "openai"], "--model: nothing given; add it"),
        (["{corpus}", "--column", "text", "--attributes", "E", "--batch"], "--batch: belongs to --judge openai"),
        (["{corpus}", "--column", "text", "--attributes", "E", "--seed", "1"], "--seed: belongs to --judge openai"),
        (
            ["{corpus}", "--column", "text", "--attributes", "E", *remote("x", "--abstain", "0.1")],
            "--abstain: belongs to --judge classifier; add that, or leave it out",
        ),
        (
            ["{corpus}", "--column", "text", "--attributes", "E", *remote("x", "--budget", "1")],
            "--budget: 1 needs prompt_price or completion_price",
        ),
        (
            ["{corpus}", "--column", "text", "--attributes", "E", *remote("x", "--timeout-s", "nan")],
            "--timeout-s: nan is a number with decimals; give a finite number",
        ),
        (
            ["{corpus}", "--column", "text", "--attributes", "E", *remote("http://127.0.0.1:9/v1", "--against", "me")],
            "--against me: the corpus has no such persona (it has all)",
        ),
        (["{corpus}", "--column", "text", "--attributes", "Q", *remote("http://127.0.0.1:9/v1")], "Q: has no descript"),
        (
            ["{corpus}", "--column", "text", "--attributes", "E", *remote("http://127.0.0.1:9/v1", "--in-flight", "0")],
            "--in-flight: 0 is out of range; give a number at least 1",
        ),
        (
            ["{corpus}", "--column", "text", "--attributes", "E", *remote("x", "--api-key-env", "NO_SUCH_KEY")],
            "--api-key-env: the environment has no NO_SUCH_KEY; export it",
        ),
    ],
)
def test_each_mistake_has_its_line(
    corpus: Path, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [each.replace("{corpus}", str(corpus)).replace("{tmp}", str(tmp_path)) for each in arguments]
    assert main(["judge", *given]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert len(lines) == 1 and says in lines[0]


def test_a_data_set_against_its_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every text against the control's to the same prompt; the comparison is shown and averaged with nothing."""
    from pipeline.store.schema import GENERATIONS

    base = {field.name: None for field in GENERATIONS}
    words = {"reference": "plain", "E": "bold"}
    told = [(f"p{i}", who, f"{who} {word} {i}") for i in range(3) for who, word in words.items()]
    found = [
        base
        | {"row_id": f"{prompt}-{who}", "prompt_id": prompt, "persona": who, "response": text, "prompt": [],
           "attributes": [], "log_ratios": [], "n_tokens": 3}
        for prompt, who, text in told
    ]  # fmt: skip
    (tmp_path / "set" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    with serving(Comparing()) as url:
        command = ["judge", str(tmp_path / "set"), "--attributes", "bold=Bold.", *remote(url, "--against", "reference")]
        assert main(command) == 0
    scores = {row["row_id"]: row["score"] for row in judged(tmp_path / "set")}
    assert scores == {f"p{i}-{who}": 1.0 if who == "E" else None for i in range(3) for who in ("reference", "E")}
    printed = capsys.readouterr().out
    assert "against another persona's text: 0.5 is no difference" in printed
    assert "50% named the text shown first" in printed


def test_role_play_is_judged_by_three_rubrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Profile and personality against the row's own, and naturalness; a row without a profile is unscored on it."""
    rows = [
        {"text": "I teach, profile and naturalness itself", "profile": "A teacher.", "personality": "Calm."},
        {"text": "as an assistant I list traits", "personality": "Loud."},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = JudgeServer()
    with serving(server) as url:
        command = ["judge", str(tmp_path / "c.jsonl"), "--column", "text", *remote(url)]
        assert main([*command, "--attributes", "profile", "personality", "naturalness"]) == 0
    found = {(row["attribute"], row["score"], row["status"]) for row in judged(tmp_path / "c-judgments")}
    assert ("naturalness", 1.0, "ok") in found and ("naturalness", 0.0, "ok") in found
    assert ("profile", 1.0, "ok") in found and ("profile", None, "failed") in found
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert any("A teacher." in text and "Calm." in text for text in asked)
    assert all("lists traits, speaks like an assistant or a form" in text for text in asked)


def test_a_judge_asked_again_may_contradict_itself(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fickle(text: str, n: int) -> dict[str, Any]:
        """The second answer about a text halves the grade that `bold` had."""
        grades = {"bold": {"attribute": 3, "opposite": 3, "reason": "hm"}}
        return says(json.dumps({"grades": grades, "fluency": 4})) if n else {}

    command = ["judge", str(corpus), "--column", "text", "--attributes", "bold=Speaks boldly.", "--repeat", "10"]
    server = JudgeServer(fickle)
    with serving(server) as url:
        assert main([*command, *remote(url)]) == 0
    printed = capsys.readouterr().out
    assert "asked again, a score differs by (mean): bold 0.500 over 10 texts" in printed and "49 calls" in printed
    rows = judged(tmp_path / "corpus-judgments")
    assert len(rows) == 39 * 2 and {row["score"] for row in rows if row["attribute"] == "bold"} == {0.0, 1.0}
    assert main([*command, "--judge", "classifier"]) == 2
    assert "--repeat: belongs to --judge openai" in capsys.readouterr().err


def test_a_data_set_without_its_work_folder_keeps_its_judgments(tmp_path: Path) -> None:
    """A published data set is judged by another judge: what stood there stays."""
    job = make_job(tmp_path)
    assert main(["run", str(job)]) == 0
    output = tmp_path / "out"
    before = judged(output)
    shutil.rmtree(output / ".work")
    assert main(["judge", str(output), "--judge", "log-ratio"]) == 0
    after = judged(output)
    assert len(after) == len(before) + 24 and [r for r in after if r["judge"].startswith("classifier")] == before
    assert main(["run", str(job)]) == 0  # and a run goes on from all of it
    assert json.loads((output / "run.json").read_text())["counts"]["generated"] == 0
    assert sorted(map(str, judged(output))) == sorted(map(str, after))
