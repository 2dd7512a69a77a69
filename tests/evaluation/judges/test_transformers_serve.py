"""Against `transformers serve` with the embedded model: an implementation of the API that nobody here wrote.

It ignores `response_format`, and a model of this size seldom answers in the form asked for: what matters is that
every text ends as a score read strictly, or as unscored with its reason.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from evaluation.endpoint.rubrics import FLUENCY, rubric_of
from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import Item
from evaluation.judges.openai import OpenAIJudge
from evaluation.scores import Status
from mpg.models.embedded import SMOLLM2, resolve


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "transformers serve did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def test_every_text_ends_with_a_strict_score_or_a_reason(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    settings = OpenAISettings(
        model=str(resolve(SMOLLM2)), base_url=url, max_tokens=48, in_flight=1, max_retries=0, timeout_s=120.0
    )
    judge = OpenAIJudge([rubric_of("bold", "Speaks boldly.")], settings)
    items = [Item("a", "I will climb that mountain tomorrow!", prompt="Plans?"), Item("b", "Maybe.")]
    found = judge.judge(items, ["bold"])
    for name in ("bold", FLUENCY):
        for score in found[name]:
            assert score.status in (Status.OK, Status.PARSE_ERROR), score
            assert (score.score is None) == (score.status is Status.PARSE_ERROR)
    assert judge.n_calls == 2
    # The server did answer: what the model said is in the reason, or became a score.
    reasons = [str(score.rationale) for score in found["bold"] if score.score is None]
    assert all("JSON" in reason or "grade" in reason for reason in reasons)
    assert judge.budget.completion_tokens > 0
