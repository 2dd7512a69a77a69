"""The fitting script on a made-up corpus: learns, keeps questions apart, prints what it measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.fit import regression, train_classifier
from evaluation.fit.measure import DimensionReport, Measure, accuracy_table, reliability_table
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.poles import DIMENSIONS
from evaluation.judges.weights_card import card_path
from evaluation.statistics.calibration import Bin


class WordlessEmbedder:
    """Vectors that know nothing, so that the n-grams have to."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), 384), 384**-0.5, dtype=np.float32)


def write_corpus(folder: Path, *, n_questions: int) -> None:
    """Pairs whose poles differ by one word, told by the pole's letter."""
    rows = [
        {
            "pole": first,
            "question": f"Question {number} of {first}?",
            "chosen": f"Answer {number} with aaa{first} in it",
            "rejected": f"Answer {number} with zzz{second} in it",
        }
        for first, second in DIMENSIONS.values()
        for number in range(n_questions)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "mbti_preferences.parquet")


def test_it_learns_and_prints_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "CANDIDATE_C", (4.0, 16.0))  # six take three times as long
    write_corpus(tmp_path, n_questions=40)
    weights = tmp_path / "weights.safetensors"
    train_classifier.train(tmp_path, weights, embedder=WordlessEmbedder())
    assert capsys.readouterr().out.count("1.000±0.000") == len(DIMENSIONS)
    judge = ClassifierJudge.load(weights, embedder=WordlessEmbedder())
    (score,) = judge.score(["Something else with aaaT in it"], "T")
    assert score.score is not None and score.score > 0.5
    card = json.loads(card_path(weights).read_text("utf-8"))
    assert all(entry["held_out"]["accuracy"] == 1.0 for entry in card["dimensions"].values())


def test_measure_by_hand() -> None:
    measure = Measure.of(np.array([1.0, -1.0, 2.0, 0.0, -0.5, -3.0]))  # 3 chosen, then their rejected
    assert (measure.accuracy, measure.pair_ranking, measure.n_answers) == (4 / 6, 2 / 3, 6)
    assert Measure.of(np.zeros(2)).log_loss == pytest.approx(math.log(2))


def test_a_question_stands_in_one_fold_only() -> None:
    groups = [f"question {number % 7}" for number in range(30)]
    for fitted, measured in regression.folds(groups):
        assert not {groups[row] for row in fitted} & {groups[row] for row in measured}


def test_the_tables_by_hand() -> None:
    held = Measure(accuracy=0.75, pair_ranking=0.9, log_loss=0.5, n_answers=100)
    crossed = Measure(accuracy=0.8, pair_ranking=1.0, log_loss=0.25, n_answers=400)
    bins = [Bin(0.0, 0.2, 10, 0.1, 0.2), Bin(0.8, 1.0, 30, 0.9, 0.9)]
    report = DimensionReport(c=4.0, temperature=1.0, held_out=held, bins=bins, crossed=crossed)
    titles, _, row = accuracy_table({"E/I": report}).splitlines()
    assert titles.startswith("dim  C  held out: accuracy")
    assert " ".join(row.split()) == "E/I 4 0.750±0.043 100 0.900 0.500 0.800 1.000 0.250 400"
    lines = [" ".join(line.split()) for line in reliability_table({"E/I": bins}).splitlines()]
    assert lines[2] == "E/I 0.0 to 0.2 10 0.10 0.20" and lines[4] == "E/I expected calibration error 0.025"
