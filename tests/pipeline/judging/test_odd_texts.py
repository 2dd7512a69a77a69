"""Whatever a file, a model or a server says is stored, or costs its own cell of the table and no more."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation.endpoint.cache import JudgmentCache, cache_key
from evaluation.items import Item
from evaluation.scores import Score, Status
from pipeline.cli import main
from pipeline.judging.table import judge_items
from pipeline.store.shards import read_shards, write_rows
from tests.judge_server import JudgeServer, good, refuses, says, serving
from tests.pipeline.commands.test_judge import judged, remote

HALF = "\\ud83d"  # as JSON spells it


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_that_can_not_be_stored_cost_their_own_cell(tmp_path: Path) -> None:
    grade = '{"attribute": 5, "opposite": 1, "reason": "%s"}'
    odd = {
        "0": says('{"grades": {"bold": ' + grade % HALF + '}, "fluency": 4}'),
        "1": says(None, refusal="no \ud83d"),
        "2": refuses(400, '{"error": {"message": "' + HALF + ' maximum context length"}}'),
        "3": says('{"grades": {"bold": "' + HALF + '"}, "fluency": 4}'),
        "4": says(f"nothing {HALF} \ud83d \x00"),
        "5": says('{"grades": {"bold": ' + grade % ("x" * 100_000) + '}, "fluency": 4}'),
    }
    corpus = write(tmp_path / "c.jsonl", [{"text": f"text {i} bold"} for i in range(30)])
    server = JudgeServer(lambda text, n: odd.get(text.split()[1]) or good(text, n))
    with serving(server) as url:
        command = ["judge", str(corpus), "--column", "text", "--attributes", "bold=Speaks boldly.", *remote(url)]
        assert main([*command, "--max-unscored-fraction", "1"]) == 0
        found = judged(tmp_path / "c-judgments")
        assert len(found) == 60
        statuses = Counter(row["status"] for row in found if row["attribute"] == "bold")
        assert statuses == {"ok": 26, "refused": 2, "parse_error": 2}
        assert sum("\\ud83d" in (row["rationale"] or "") for row in found) == 8
        asked = server.calls.total()
        assert main([*command, "--max-unscored-fraction", "1"]) == 0  # what was answered is kept
        assert server.calls.total() == asked + 4


@pytest.mark.parametrize("how", ["classifier", "openai"])
def test_texts_and_keys_that_can_not_be_sent(tmp_path: Path, how: str) -> None:
    corpus = write(
        tmp_path / "c.jsonl",
        [
            {"row_id": "a\ud83d", "text": "I love loud parties."},
            {"row_id": "b", "text": "I stay \ud83d at home."},
            {"row_id": "c", "text": "Quiet evenings.", "prompt": "\udc00"},
            {"row_id": "d", "text": "Fine.", "profile": "\udc00"},
        ],
    )
    with serving(JudgeServer()) as url:
        command = ["judge", str(corpus), "--column", "text", "--attributes", "E"]
        assert main([*command, *(remote(url) if how == "openai" else [])]) == 0
    found = {row["row_id"]: row for row in judged(tmp_path / "c-judgments") if row["attribute"] == "E"}
    assert {row_id: row["status"] for row_id, row in found.items()} == {
        "a\\ud83d": "ok", "b": "failed", "c": "failed", "d": "failed",
    }  # fmt: skip
    assert found["b"]["rationale"] == "the text holds half a surrogate pair, which can't be sent"


def test_an_answer_that_was_kept_badly_is_read_or_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = JudgmentCache(path)
    cache.put({"half": Score(1.0, Status.OK, "\ud83d")})
    cache.close()
    with sqlite3.connect(path) as db:
        for name, value in {"json": "[", "range": "[7, null]", "form": "3", "deep": "[" * 100_000, "key": "{}"}.items():
            db.execute("INSERT INTO scores VALUES (?, ?)", (name, value))
    cache = JudgmentCache(path)
    assert cache.get("half") == Score(1.0, Status.OK, "\\ud83d")
    for name in ("json", "range", "form", "deep", "key"):
        assert cache.get(name) is None
        cache.put({name: Score(0.5, Status.OK)})
        assert cache.get(name) == Score(0.5, Status.OK)
    assert cache_key(text="\ud83d")


class Odd:
    """A judge of this process that says what no file can hold."""

    name, version = "odd\ud83d", "1"

    def knows(self, attribute: str) -> bool:
        return True

    def judge(self, items: list[Item], attributes: list[str]) -> dict[str, list[Score]]:
        reasons = [Score(0.5, Status.OK, f"\ud83d {item.key}", 10**30 if item.key == "b" else 1) for item in items]
        return {name: reasons for name in attributes}


def test_what_a_judge_says_costs_its_own_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [Item(key, "words") for key in "abc"]
    for _ in range(2):
        judge_items(Odd(), items, ["x\ud83d"], tmp_path)
        found = read_shards(tmp_path, "judgments").to_pylist()
        assert [row["row_id"] for row in found] == ["a", "c"]
        assert found[0]["rationale"] == "\\ud83d a" and found[0]["judge"] == "odd\\ud83d@1"
    assert "row b can't be stored and is left out" in caplog.text


def test_a_row_of_any_table_costs_itself(tmp_path: Path) -> None:
    row: dict[str, Any] = {"row_id": "a", "attribute": "E", "judge": "j", "score": 0.5, "status": "ok"}
    bad = [row | {"row_id": None}, row | {"score": "much"}, row | {"prompt_tokens": 2**70}, row | {"rationale": ["x"]}]
    write_rows([*bad, row, row | {"row_id": "b", "rationale": "\ud83d"}], "judgments", tmp_path / "x.parquet")
    assert [each["row_id"] for each in read_shards(tmp_path, "judgments").to_pylist()] == ["a", "b"]
