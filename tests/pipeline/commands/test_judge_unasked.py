"""``mpg judge`` with a judge that can't be asked: a few calls, the reason, what to do, and a status that says so."""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from tests.judge_server import JudgeServer, Reply, good, refuses, says, serving, status
from tests.pipeline.commands.test_judge import judged, remote

KEY = "sk-secret-0123456789"
N = 200


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    texts = ({"text": f"text {i} is {'bold' if i % 2 else 'plain'}"} for i in range(N))
    path.write_text("".join(json.dumps(row) + "\n" for row in texts))
    return path


def command(corpus: Path, url: str, *more: str) -> list[str]:
    return ["judge", str(corpus), "--column", "text", "--attributes", "bold=Speaks boldly.", *remote(url, *more)]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err and "Traceback" not in printed.err
    return printed.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("reply", "exit_status", "words"),
    [
        (
            refuses(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
            5,
            "Incorrect API key provided: ***",
        ),
        (refuses(404, {"error": {"message": "model 'scripted' not found"}}), 5, "model 'scripted' not found"),
        (refuses(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}), 5, "quota"),
        (status(429, retry_after="86400"), 75, "come back in 86400 s"),
    ],
    ids=str,
)
def test_a_judge_that_can_not_be_asked_is_no_success(
    corpus: Path, tmp_path: Path, reply: Reply, exit_status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = JudgeServer(lambda text, n: reply)
    with serving(refusing) as url:
        assert main(command(corpus, url)) == exit_status
    assert refusing.calls.total() == 1
    line = last_line(capsys)
    assert line.startswith("mpg: judge openai@scripted+") and words in line
    assert "400 of 400 judgments are missing, more than max_unscored_fraction 0.05 allows" in line
    assert "the same command asks for the rest" in line
    server = JudgeServer()
    with serving(server) as url:  # the same command judges on
        assert main(command(corpus, url)) == 0
    assert server.calls.total() == N
    assert Counter(row["status"] for row in judged(tmp_path / "corpus-judgments")) == {"ok": 2 * N}


def test_nobody_there_is_worth_trying_again(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        assert main(command(corpus, url, "--max-retries", "1")) == 75
    assert "no connection (connection refused), 2 times in a row; the same command" in last_line(capsys)
    assert main(command(corpus, "http://no-such-host.invalid/v1", "--max-retries", "1")) in (5, 75)
    assert "its host can't be found" in last_line(capsys)


def test_how_much_may_be_missing_is_the_users_to_say(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every tenth answer can't be read: the fraction decides, not the reason."""
    unreadable = JudgeServer(lambda text, n: says("I'd say 4.") if text.split()[1].endswith("7") else good(text, n))
    with serving(unreadable) as url:
        assert main(command(corpus, url, "--max-unscored-fraction", "0.2")) == 0
        assert "unscored: 40 parse_error" in capsys.readouterr().out
        assert main(command(corpus, url)) == 5
        assert "40 of 400 judgments are missing" in (line := last_line(capsys))
        assert "40 times 0 JSON objects with grades" in line
        folder = tmp_path / "corpus.d"
        folder.mkdir()
    assert main(command(corpus, "http://127.0.0.1:9/v1", "--max-unscored-fraction", "1.5")) == 2
    assert "--max-unscored-fraction: 1.5 is out of range; give a number from 0 to 1" in last_line(capsys)


def test_what_nobody_could_judge_does_not_count(tmp_path: Path) -> None:
    rows = [{"text": "bold words"}, *({"text": " ... "} for _ in range(9)), {"text": "half \ud800"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(JudgeServer()) as url:
        assert main(command(tmp_path / "corpus.jsonl", url)) == 0


def test_comparisons_that_could_not_be_had_are_asked_for_again(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.store.schema import GENERATIONS
    from tests.evaluation.judges.test_pairwise import Comparing

    base = {field.name: None for field in GENERATIONS}
    told = [
        (f"p{i}", who, f"{who} {word} {i}") for i in range(3) for who, word in (("reference", "plain"), ("E", "bold"))
    ]
    found = [
        base
        | {"row_id": f"{prompt}-{who}", "prompt_id": prompt, "persona": who, "response": text, "prompt": [],
           "attributes": [], "log_ratios": [], "n_tokens": 3}
        for prompt, who, text in told
    ]  # fmt: skip
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(found), folder / "data" / "train-00000-of-00001.parquet")
    against = ["judge", str(folder), "--attributes", "bold=Bold.", "--judge", "openai", "--model", "m"]
    with serving(JudgeServer(lambda text, n: status(401))) as url:
        assert main([*against, "--against", "reference", "--base-url", url]) == 5
    with serving(Comparing()) as url:
        assert main([*against, "--against", "reference", "--base-url", url]) == 0
    scores = {row["row_id"]: row["score"] for row in judged(folder)}
    assert scores == {f"p{i}-{who}": 1.0 if who == "E" else None for i in range(3) for who in ("reference", "E")}


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--temperature", "1"], {"temperature": 1.0}),
        (["--temperature", "null"], {"temperature": None}),
        (["--extra-body", '{"top_k": 1, "seed_mode": "x"}'], {"top_k": 1, "temperature": 0.0}),
    ],
)
def test_what_is_sent_can_be_said(corpus: Path, options: list[str], body: dict[str, Any]) -> None:
    server = JudgeServer()
    with serving(server) as url:
        assert main(command(corpus, url, *options)) == 0
    assert {name: server.bodies[0].get(name) for name in body} == body


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--api-key-env", "sk-hunter2-012345"], "--api-key-env: is no name of an environment variable"),
        (["--api-key", "sk-hunter2-012345"], "--api-key-env: is no name of an environment variable"),
        (["--base-url", "https://user:hunter2@host/v1"], "--base-url: holds a user, a password or a key"),
        (["--base-url", "hunter2@host"], "--base-url: holds a user, a password or a key"),
        (["--extra-body", '{"api_key": "hunter2"}'], "--extra-body: holds what looks like a key"),
        (["--base-url", "localhost:8000/v1"], "--base-url: 'localhost:8000/v1' is no address"),
    ],
)
def test_a_secret_on_the_command_line_is_not_echoed(
    corpus: Path, tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(corpus, "http://127.0.0.1:9/v1", *options)) == 2
    printed = capsys.readouterr()
    assert says in printed.err and len(printed.err.strip().splitlines()) == 1 and "hunter2" not in printed.err
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hunter2" not in everything


@pytest.mark.parametrize("options", [["--api_key", "sk-hunter2-0123"], ["--secret", "hunter2"], ["--password=hunter2"]])
def test_a_secret_behind_an_unknown_option_is_not_echoed(
    corpus: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(command(corpus, "http://127.0.0.1:9/v1", *options))
    printed = capsys.readouterr()
    assert "hunter2" not in printed.out + printed.err and options[0].partition("=")[0] in printed.err
