"""What is printed never ends a command: a terminal or log that is no UTF-8 gets it spelled out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.judge_server import JudgeServer, refuses, serving

TEXTS = ("¡Fiesta! Zoë → 日本語 👍", "half \ud83d a pair")


@pytest.mark.parametrize(
    ("environment", "attribute"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "ñandú=Habla como un ñandú."),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "bold=Speaks boldly."),
    ],
    ids=str,
)
def test_a_log_that_is_no_utf_8(tmp_path: Path, environment: dict[str, str], attribute: str) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text("".join(json.dumps({"text": text, "prompt": "¿qué?"}) + "\n" for text in TEXTS))
    with serving(JudgeServer(lambda text, n: refuses(401, {"error": {"message": "clé 日本 \ud83d"}}))) as url:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "judge", str(corpus), "--column", "text", "--attributes",
             attribute, "--judge", "openai", "--model", "scripted", "--base-url", url],
            capture_output=True,
            env=os.environ | environment | {"OPENAI_API_KEY": "sk-secret"},
        )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert b"Traceback" not in done.stderr and b"judgments are missing" in done.stderr.splitlines()[-1]
    assert b"\\u65e5\\u672c" in done.stderr and b"sk-secret" not in done.stderr + done.stdout
