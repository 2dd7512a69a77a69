"""An arm's texts: whose they are, what they are scored by, and what books say of their law."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from evaluation.features.embedding import Embedder
from pipeline.compare.arms import Curve, Point, Stage, job_of, points_of, weighed
from pipeline.compare.bare import Bare, BareBook
from pipeline.compare.load import load_comparison
from pipeline.compare.measures import measures
from pipeline.compare.texts import Written, divergence_of, family_of, read_texts
from tests.made_data_set import RUN, judged, make, row
from tests.tiny_comparison import comparison_data, make_comparison

PEOPLE = '{"profile": "a baker", "personality": "calm"}\n{"profile": "a pilot", "personality": "loud"}\n'


class KnownBook:
    """Two nats a word, of any text."""

    def of(self, job: Any, dtype: str, temperature: float, rows: Sequence[Mapping[str, Any]]) -> list[Bare]:
        return [Bare(-2.0 * len(row["response"].split()), len(row["response"].split())) for row in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two people of one mixture, and of one attribute."""
    personas = {
        "kind": "explicit",
        "weights": [{"name": "EJ", "weights": {"E": 0.5, "J": 0.5}}, {"name": "onlyE", "weights": {"E": 1.0}}],
    }
    (tmp_path / "people.jsonl").write_text(PEOPLE)
    task = comparison_data()["tasks"][0] | {"personas": personas, "people": {"file": "people.jsonl"}}
    return make_comparison(tmp_path, tasks=[task])


def read(path: Path, label: str, rows: list[dict[str, Any]], scores: Mapping[str, list[float | None]],
         embedder: Embedder | None = None) -> Written:  # fmt: skip
    """What an arm has written, from a data set made by hand in its place."""
    comparison = load_comparison(path)
    (task,) = comparison.tasks
    every = job_of(comparison, task)
    points: dict[str, Point] = {p.label: p for m in comparison.methods for p in points_of(m, weighed(every))}
    job = job_of(comparison, task, points[label], Stage("screening", 0, 2, 1))
    given = [each for name, values in scores.items() for each in judged(rows, name, values)]
    given += judged(rows, "E", [0.9] * len(rows), judge="log-ratio@1")
    make(Path(job.output_folder), rows, given, run=RUN | {"dtype": "float32", "computed_with": {"machines": []}})
    return read_texts(job, every.build_personas(), KnownBook(), job.decoder.temperature, embedder)  # type: ignore[arg-type]


def test_the_references_texts_stand_for_every_persona(path: Path) -> None:
    rows = [row("reference", prompt, {}, "one two three", decoder="reference") for prompt in "pq"]
    texts = read(path, "reference", rows, {"E": [0.6, 0.2], "J": [0.4, None]}).texts
    assert [text.persona for text in texts[::2]] == ["EJ as 1", "EJ as 2", "onlyE as 1", "onlyE as 2"]
    assert len({text.prompt for text in texts}) == 2 and texts[0].prompt == texts[2].prompt != texts[1].prompt
    both, lacking = texts[:2]
    assert both.scores == {"E": 0.6, "J": 0.4} and both.score == 0.5 and both.carried == 0.0
    assert lacking.score is None and lacking.carried is None
    assert texts[4].scores == {"E": 0.6} and texts[4].carried == 1.0
    assert both.by_family["log-ratio"] == {"E": 0.9, "J": None} and both.divergence == 0.0


def test_one_attribute_alone_is_judged_by_all_that_its_persona_asks_for(path: Path) -> None:
    """Under `single E` two personas of one person come to the same text."""
    rows = [row(f"EJ as {n}", "p", {"E": 1.0}, decoder="routing", strengths=[1.0]) for n in (1, 2)]
    texts = read(path, "single E x1", rows, {"E": [0.6, 0.7], "J": [0.2, 0.3]}).texts
    assert [(text.persona, text.score) for text in texts] == [
        ("EJ as 1", pytest.approx(0.4)), ("EJ as 2", pytest.approx(0.5)), ("onlyE as 1", 0.6), ("onlyE as 2", 0.7),
    ]  # fmt: skip
    assert [text.divergence for text in texts] == [0.5] * 4


class Bakers:
    """An embedder that knows bakers from all others."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[1.0, 0.0] if "bak" in text else [0.0, 1.0] for text in texts], dtype=np.float32)


def test_the_references_texts_are_held_against_each_person(path: Path) -> None:
    data = yaml.safe_load(path.read_text())
    data["job"]["attributes"].append("profile")
    data["job"]["judges"].append({"kind": "persona-match"})
    data["tasks"][0]["personas"] = {"kind": "explicit", "weights": [{"name": "who", "weights": {"profile": 1.0}}]}
    data["methods"] = data["methods"][:1]
    path.write_text(yaml.safe_dump(data | {"final": {"finalists": 0}}))
    rows = [row("reference", "p", {}, "I bake bread.", decoder="reference")]
    baker, pilot = read(path, "reference", rows, {"profile": [None]}, Bakers()).texts
    assert baker.score == 1.0 and pilot.score == 0.0 and baker.by_family["persona-match"] == {"profile": 1.0}
    (nobody, _) = read(path, "reference", rows, {"profile": [None]}).texts
    assert nobody.score is None


def test_how_far_weights_control_scores(path: Path) -> None:
    weights = [{"E": 0.5, "J": 0.5}, {"E": 1.0}]
    rows = [row(name, "p", each) for name, each in zip(("EJ as 1", "onlyE as 1"), weights, strict=True)]
    found = read(path, "mod x1", rows, {"E": [0.4, 0.9], "J": [0.5, 0.5]}).control
    assert found["E"].slope.value == pytest.approx(1.0) and found["E"].monotone


def test_an_arm_in_numbers(path: Path) -> None:
    rows = [row("reference", prompt, {}, "one two three", decoder="reference", n_chunks=0) for prompt in "pq"]
    written = read(path, "reference", rows, {"E": [0.6, 0.2], "J": [0.8, 0.4]})
    timed = Written(written.texts, written.run | {"timings": {"tokens_per_s": 7.0}}, written.prompts_hash)
    found = measures("screening", "both", Point(Curve("reference")), timed, None)
    assert found["perplexity"] == pytest.approx(math.exp(2)) and found["kl_per_token"] == 0
    assert (found["n_texts"], found["n_prompts"], found["n_unscored"]) == (8, 2, 0)
    assert found["score"] == pytest.approx((2 * 0.7 + 2 * 0.3 + 2 * 0.6 + 2 * 0.2) / 8)
    assert found["worst_attribute"] == "E" and found["joint"] == 0.5
    assert found["self_bleu"] == pytest.approx(1.0) and found["spread_within"] is None
    assert (found["tokens_per_s"], found["rounds_per_token"]) == (7.0, 1.0)


def test_what_books_say_of_a_law(tmp_path: Path) -> None:
    comparison = load_comparison(make_comparison(tmp_path))
    (task,) = comparison.tasks
    job = job_of(comparison, task)
    by_sum = job.model_copy(update={"decoder": job.decoder.model_copy(update={"aggregate": "sum"})})
    whole = job.model_copy(update={"decoder": by_sum.decoder.model_copy(update={"horizon": None})})
    of: dict[str, Any] = {"system": None, "decoder": "scr-exact", "weights": [0.25, 0.75], "strengths": [1.0, 1.0]}
    of["log_ratios"] = [2.0, -1.0]
    assert divergence_of(of, whole, job.decoder.temperature) == pytest.approx(
        math.log(0.25 * math.exp(2) + 0.75 * math.exp(-1))
    )
    assert divergence_of(of, by_sum, job.decoder.temperature) is None  # reset every 8 tokens
    assert divergence_of(of, job, job.decoder.temperature) is None  # the product's normaliser is in no book
    assert divergence_of(of | {"strengths": [2.0, 2.0]}, whole, job.decoder.temperature) is None
    assert divergence_of(of | {"system": "Be kind."}, whole, job.decoder.temperature) is None
    assert divergence_of(of | {"decoder": "mod"}, whole, job.decoder.temperature) is None
    assert divergence_of(of | {"decoder": "scr"}, whole, job.decoder.temperature) is None  # approximate
    alone = of | {"decoder": "mod", "weights": [1.0], "strengths": [1.0], "log_ratios": [2.0]}
    assert divergence_of(alone, job, job.decoder.temperature) == 2.0
    assert divergence_of(alone, job, 0.5) is None  # the bare reference is measured at another temperature


def test_what_is_known_of_a_text_is_of_one_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a file that nobody can read is worked out again."""
    asked: list[float] = []

    def scored(job: Any, dtype: str, temperature: float, rows: Sequence[Mapping[str, Any]]) -> Any:
        asked.append(temperature)
        return {row["row_id"]: Bare(-temperature, 1) for row in rows}.items()

    monkeypatch.setattr("pipeline.compare.bare._scored", scored)
    job: Any = None
    for temperature in (1.0, 0.5, 1.0, 0.5):
        (found,) = BareBook(tmp_path).of(job, "float32", temperature, [{"row_id": "a"}])
        assert found.log_prob == -temperature
    assert asked == [1.0, 0.5]
    (tmp_path / "bare.parquet").write_bytes(b"junk")
    assert BareBook(tmp_path).of(job, "float32", 1.0, [{"row_id": "a"}]) == [Bare(-1.0, 1)]
    assert asked == [1.0, 0.5, 1.0]


def test_judges_of_one_family_are_one_and_models_of_endpoints_are_several() -> None:
    own = ["own-classifier@E+12", "own-classifier@J+34"]
    labels = ["classifier@2+ab", "encoder@1+cd", *own, "openai@m+1", "openai@n+1"]
    assert [family_of(label) for label in labels] == [
        "classifier", "encoder", "own-classifier", "own-classifier", "openai m", "openai n",
    ]  # fmt: skip
