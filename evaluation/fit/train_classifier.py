"""Fit the classifier judge: ``python -m evaluation.fit.train_classifier --data ../shared/data``.

The recipe (features, embedding scale) was chosen by cross-validation on the train split; the regularisation of each
dimension is chosen so again in every run. The held-out questions are only measured.

Takes a few minutes on two cores, nearly all of it embedding.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import sklearn

from evaluation.features.embedding import Embedder, SentenceEmbedder
from evaluation.fit.measure import DimensionReport, accuracy_table, reliability_table
from evaluation.fit.regression import EMBEDDING_SCALE, calibrated, choose_c, cross_validate, fit, prepare
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.classifier_weights import SHIPPED, DimensionModel, write_weights
from evaluation.judges.poles import DIMENSIONS
from personas.preferences import load_mbti_pairs, split

VERSION = "2"
FITTED_ON = (
    "train split (personas.preferences.split) of mbti_preferences.parquet: PKU-YuanGroup/Machine-Mindset (Apache-2.0) "
    "and Libra117/MPG, whose pairs are drawn from it"
)
# What the card says beside what was measured.
_FACTS = {
    "version": VERSION,
    "what": "P(first pole) of an answer to an everyday question, one logistic regression a dimension",
    "fitted_on": FITTED_ON,
    "embedding_scale": EMBEDDING_SCALE,
    "scikit_learn": sklearn.__version__,
    "limits": "English; short first-person answers; reads style and topic words, measures no personality",
}


class Remembered:
    """An embedder that answers from vectors already computed."""

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vectors[text] for text in texts])


def train(data: Path, output: Path, *, embedder: Embedder) -> None:
    """Fit, write weights and card to ``output``, print the tables."""
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
    judge = ClassifierJudge(models, Remembered(vectors), card={})
    reports = {
        name: DimensionReport.of(
            judge, name, split(some)[1], c=chosen[name][0], temperature=chosen[name][1],
            crossed=cross_validate(prepare(some, vectors), c=chosen[name][0]),
        )
        for name, some in pairs.items()
    }  # fmt: skip
    print(accuracy_table(reports))
    print("\n" + reliability_table({name: report.bins for name, report in reports.items()}))
    results = {name: report.on_card(name, len(split(pairs[name])[0])) for name, report in reports.items()}
    write_weights(output, models, {**_FACTS, "dimensions": results})


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fit the classifier judge and measure it.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mbti_preferences.parquet")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="weights file; its card goes beside it")
    arguments = parser.parse_args(argv)
    train(arguments.data, arguments.output, embedder=SentenceEmbedder())


if __name__ == "__main__":
    main()
