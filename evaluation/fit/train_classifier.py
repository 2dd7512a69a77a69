"""Fit the classifier judge: ``python -m evaluation.fit.train_classifier --data ../shared/data``.

The recipe (features, embedding scale) was chosen by cross-validation on the train split; the regularisation of each
dimension is chosen so again in every run. The held-out questions are only measured.

Takes a few minutes on two cores, nearly all of it embedding.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import sklearn

from evaluation.features.embedding import Embedder, SentenceEmbedder
from evaluation.fit.measure import (
    FLOORS,
    DimensionReport,
    accuracy_table,
    held_out_measure,
    held_out_reliability,
    reliability_table,
)
from evaluation.fit.regression import EMBEDDING_SCALE, calibrated, choose_c, cross_validate, fit, prepare
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.classifier_weights import DIMENSIONS, SHIPPED, DimensionModel, write_weights
from evaluation.statistics.calibration import calibration_error
from personas.preferences import PreferencePair, load_mbti_pairs, split

VERSION = "2"
# What the card says beside what was measured.
_FACTS = {
    "version": VERSION,
    "what": "P(first pole) of an answer to an everyday question, one logistic regression a dimension",
    "fitted_on": "train split (personas.preferences.split) of mbti_preferences.parquet: PKU-YuanGroup/"
    "Machine-Mindset (Apache-2.0) and Libra117/MPG, whose pairs are drawn from it",
    "embedding_scale": EMBEDDING_SCALE,
    "scikit_learn": sklearn.__version__,
    "limits": "English; short first-person answers; reads style and topic words, measures no personality",
}


class _Remembered:
    """An embedder that answers from vectors already computed."""

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vectors[text] for text in texts])


def train(data: Path, output: Path, *, embedder: Embedder) -> bool:
    """Fit, write weights and card to ``output``, print the tables; whether every floor is met."""
    pairs = {dimension: load_mbti_pairs(data, poles[0]) for dimension, poles in DIMENSIONS.items()}
    answers = (text for some in pairs.values() for pair in some for text in (pair.chosen, pair.rejected))
    texts = list(dict.fromkeys(answers))
    vectors = dict(zip(texts, embedder.embed(texts), strict=True))
    models: dict[str, DimensionModel] = {}
    chosen: dict[str, tuple[float, float]] = {}  # C, temperature
    for dimension, some in pairs.items():
        train_answers = prepare(split(some)[0], vectors)
        c = choose_c(train_answers)
        models[dimension], divisor = calibrated(fit(train_answers.features, c=c), train_answers, c=c)
        chosen[dimension] = c, divisor
    # The models hold the numbers as they are stored (float16 and so on), so this measures the file.
    judge = ClassifierJudge(models, _Remembered(vectors), card={})
    reports = {name: _report(judge, name, some, vectors, *chosen[name]) for name, some in pairs.items()}
    print(accuracy_table(reports))
    print("\n" + reliability_table({name: report.bins for name, report in reports.items()}))
    results = {name: _on_card(name, report, len(split(pairs[name])[0])) for name, report in reports.items()}
    write_weights(output, models, {**_FACTS, "dimensions": results})
    return all(report.held_out.accuracy >= FLOORS[name] for name, report in reports.items())


def _report(
    judge: ClassifierJudge,
    dimension: str,
    pairs: Sequence[PreferencePair],
    vectors: Mapping[str, np.ndarray],
    c: float,
    divisor: float,
) -> DimensionReport:
    held_out, pole = split(pairs)[1], DIMENSIONS[dimension][0]
    return DimensionReport(
        c=c,
        temperature=divisor,
        held_out=held_out_measure(judge, held_out, pole),
        bins=held_out_reliability(judge, held_out, pole),
        crossed=cross_validate(prepare(pairs, vectors), c=c),
    )


def _on_card(dimension: str, report: DimensionReport, n_train_pairs: int) -> dict[str, Any]:
    return {
        "poles": list(DIMENSIONS[dimension]),
        "c": report.c,
        "temperature": report.temperature,
        "reliability": [asdict(each) for each in report.bins],
        "calibration_error": calibration_error(report.bins),
        "n_train_pairs": n_train_pairs,
        "held_out": asdict(report.held_out),
        "cross_validated_all_pairs": asdict(report.crossed),
        "floor": FLOORS[dimension],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 if every floor is met, 1 if not (the weights are written either way)."""
    parser = argparse.ArgumentParser(description="Fit the classifier judge and measure it.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mbti_preferences.parquet")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="weights file; its card goes beside it")
    arguments = parser.parse_args(argv)
    return 0 if train(arguments.data, arguments.output, embedder=SentenceEmbedder()) else 1


if __name__ == "__main__":
    sys.exit(main())
