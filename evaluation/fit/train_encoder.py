"""Fit the judge on an encoder's layers: ``python -m evaluation.fit.train_encoder --data ../shared/data``.

The regularisation of each dimension is chosen by cross-validation on the train split. The held-out questions are only
measured, beside the classifier that ships and the mean of the two.

Takes a few minutes on two cores, nearly all of it embedding.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import sklearn
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from evaluation.features.embedding import DIMENSION, Embedder, LayerEmbedder
from evaluation.fit.measure import (
    DimensionReport,
    Measure,
    accuracy_table,
    held_out_scores,
    log_odds,
    reliability_table,
    with_error,
)
from evaluation.fit.regression import Answers, calibrated, choose_c, cross_validate, questions_of, texts_of
from evaluation.fit.train_classifier import FITTED_ON, Remembered
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.encoder import SHIPPED, EncoderJudge, EncoderModel, write_weights
from evaluation.judges.poles import DIMENSIONS, PoleJudge
from evaluation.tables import aligned
from personas.preferences import PreferencePair, load_mbti_pairs, split

CANDIDATE_C = (0.5, 1.0, 2.0, 4.0, 8.0)
_FACTS = {
    "version": "1",
    "what": "P(first pole) of an answer to an everyday question, one logistic regression a dimension, on the mean "
    "state of each of the encoder's layers",
    "fitted_on": FITTED_ON,
    "scikit_learn": sklearn.__version__,
    "limits": "English; short first-person answers; reads topic and tone, measures no personality",
}


def fit(vectors: np.ndarray, /, *, c: float) -> EncoderModel:
    """L2-regularised logistic regression on the vectors of [2 * pairs] answers, all chosen before all rejected."""
    mean = vectors.mean(axis=0, dtype=np.float64)  # [SIZE]
    labels = np.repeat([1, 0], len(vectors) // 2)
    fitted = LogisticRegression(C=c, solver="liblinear", max_iter=1000).fit(vectors - mean, labels)
    coef = fitted.coef_[0].astype(np.float32)
    return EncoderModel(coef, float(fitted.intercept_[0] - mean @ coef))  # centring, folded in


@dataclass(frozen=True)
class Beside:
    """Two judges on the same held-out answers.

    Attributes:
        other, mean: the other judge's measure, and that of both scores' mean.
        kappa: Cohen's, of which side of 0.5 an answer is on.
        spearman_within: rank correlation among answers of one pole, mean of the two poles: what they have in common
            beyond what is so.
    """

    other: Measure
    mean: Measure
    kappa: float
    spearman_within: float

    @classmethod
    def of(cls, scores: np.ndarray, others: np.ndarray) -> Beside:
        """Of scores [2 * pairs], all chosen before all rejected."""
        halves = zip(np.split(scores, 2), np.split(others, 2), strict=True)
        return cls(
            other=Measure.of(log_odds(others)),
            mean=Measure.of(log_odds((scores + others) / 2)),
            kappa=float(cohen_kappa_score(scores > 0.5, others > 0.5)),
            spearman_within=float(np.mean([spearmanr(one, other).statistic for one, other in halves])),
        )


def train(data: Path, output: Path, *, embedder: Embedder, beside: PoleJudge | None = None) -> None:
    """Fit, write weights and card to ``output``, print the tables.

    Args:
        embedder: in all layers. beside: who is measured beside it; the classifier that ships if ``None``.
    """
    pairs = {dimension: load_mbti_pairs(data, poles[0]) for dimension, poles in DIMENSIONS.items()}
    texts = list(dict.fromkeys(text for some in pairs.values() for text in texts_of(some)))
    vectors = dict(zip(texts, embedder.embed(texts), strict=True))
    models: dict[str, EncoderModel] = {}
    chosen: dict[str, tuple[float, float]] = {}  # C, temperature
    for dimension, some in pairs.items():
        answers = _answers(split(some)[0], vectors)
        c = choose_c(answers, CANDIDATE_C, by=fit)
        models[dimension], divisor = calibrated(fit(answers.features, c=c), answers, c=c, by=fit)
        chosen[dimension] = c, divisor
    judge = EncoderJudge(models, Remembered(vectors), card={})
    beside = beside or ClassifierJudge.load(embedder=Remembered({text: v[-DIMENSION:] for text, v in vectors.items()}))
    reports, both = dict[str, DimensionReport](), dict[str, Beside]()
    for name, some in pairs.items():
        (c, divisor), (_, held_out), pole = chosen[name], split(some), DIMENSIONS[name][0]
        crossed = cross_validate(_answers(some, vectors), c=c, by=fit)
        reports[name] = DimensionReport.of(judge, name, held_out, c=c, temperature=divisor, crossed=crossed)
        both[name] = Beside.of(*(held_out_scores(each, held_out, pole) for each in (judge, beside)))
    print(accuracy_table(reports))
    print("\n" + reliability_table({name: report.bins for name, report in reports.items()}))
    print("\n" + beside_table(reports, both))
    on_card = {
        name: report.on_card(name, len(split(pairs[name])[0])) | {"beside_classifier": asdict(both[name])}
        for name, report in reports.items()
    }
    write_weights(output, models, {**_FACTS, "dimensions": on_card})


def _answers(pairs: Sequence[PreferencePair], vectors: Mapping[str, np.ndarray]) -> Answers:
    return Answers(np.stack([vectors[text] for text in texts_of(pairs)]), questions_of(pairs))


def beside_table(reports: Mapping[str, DimensionReport], both: Mapping[str, Beside]) -> str:
    """Both judges and their mean on held-out answers, and how far they agree."""
    head = [
        "dim",
        "encoder",
        "classifier",
        "their mean",
        "ranking",
        "classifier",
        "their mean",
        "kappa",
        "within a pole",
    ]
    rows = []
    for name, each in both.items():
        found = (reports[name].held_out, each.other, each.mean)
        accuracies, rankings = map(with_error, found), (f"{one.pair_ranking:.3f}" for one in found)
        rows.append([name, *accuracies, *rankings, f"{each.kappa:.2f}", f"{each.spearman_within:.2f}"])
    return aligned(head, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fit the judge on an encoder's layers, and measure it.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mbti_preferences.parquet")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="weights file; its card goes beside it")
    arguments = parser.parse_args(argv)
    train(arguments.data, arguments.output, embedder=LayerEmbedder())


if __name__ == "__main__":
    main()
