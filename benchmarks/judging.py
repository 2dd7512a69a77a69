"""Judgments a second behind an endpoint: ``python -m benchmarks.judging``.

A server of its own process answers every call after 200 ms; 32 calls may be in flight, which bounds the rate at 160
calls a second whatever the client does. Both ways to count are printed: calls, and judgments (an attribute of a text
each), of which a call gives several.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

from evaluation.endpoint.cache import JudgmentCache
from evaluation.endpoint.rubrics import rubric_of
from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import Item
from evaluation.judges.openai import OpenAIJudge
from personas import MBTI
from tests.judge_server import JudgeServer, serving


def _serve(delay_s: float, urls: multiprocessing.Queue, done: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    with serving(JudgeServer(delay_s=delay_s)) as url:
        urls.put(url)
        done.wait()


def main() -> None:
    """Print calls and judgments a second for one and for four attributes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--delay-s", type=float, default=0.2)
    parser.add_argument("--in-flight", type=int, default=32)
    options = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    context = multiprocessing.get_context("spawn")
    urls, done = context.Queue(), context.Event()
    server = context.Process(target=_serve, args=(options.delay_s, urls, done), daemon=True)
    server.start()
    url = urls.get()
    items = [Item(str(i), f"text {i}: " + "word " * 60, prompt="Say something.") for i in range(options.texts)]
    bound = options.in_flight / options.delay_s
    calls = f"{options.in_flight} calls in flight, {options.delay_s:g} s each"
    print(f"{options.texts} texts, {calls}: {bound:.0f} calls/s at most")
    print("attributes  calls/s  judgments/s (fluency not counted)")
    for names in ("E", "ENTJ"):
        rubrics = [rubric_of(name, MBTI[name].description) for name in names]
        settings = OpenAISettings(model="scripted", base_url=url, in_flight=options.in_flight)
        with tempfile.TemporaryDirectory() as folder:
            judge = OpenAIJudge(rubrics, settings, cache=JudgmentCache(Path(folder) / "cache.sqlite"))
            judge.judge(items[:32], list(names))  # connections and imports
            judge = OpenAIJudge(rubrics, settings, cache=JudgmentCache(Path(folder) / "second.sqlite"))
            begin = time.perf_counter()
            found = judge.judge(items, list(names))
            seconds = time.perf_counter() - begin
        assert all(score.score is not None for name in names for score in found[name])
        print(f"{len(names):10}  {judge.n_calls / seconds:7.1f}  {len(items) * len(names) / seconds:11.1f}")
    done.set()
    server.join()


if __name__ == "__main__":
    main()
