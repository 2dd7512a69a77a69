"""How well a judge tells the answers of pairs apart, and the tables that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.judges.classifier import ClassifierJudge
from evaluation.statistics.calibration import Bin, calibration_error, reliability
from evaluation.tables import aligned
from personas.preferences import PreferencePair

# Accuracy on unseen answers that plain tf-idf with logistic regression reaches (shared/data/README.md).
FLOORS = {"E/I": 0.85, "S/N": 0.76, "T/F": 0.87, "J/P": 0.83}


@dataclass(frozen=True)
class Measure:
    """How logits tell the answers of pairs apart."""

    accuracy: float  # single answers on the right side of 0.5
    pair_ranking: float  # pairs whose chosen answer scores above the rejected one
    log_loss: float  # nats an answer; log 2 = 0.693 knows nothing
    n_answers: int

    @classmethod
    def of(cls, logits: np.ndarray) -> Measure:
        """Measure logits [2 * pairs], all chosen before all rejected."""
        chosen, rejected = np.split(logits, 2)
        signed = np.concatenate([chosen, -rejected])  # above 0 is right
        return cls(
            accuracy=float((signed > 0).mean()),
            pair_ranking=float((chosen > rejected).mean()),
            log_loss=float(np.logaddexp(0.0, -signed).mean()),
            n_answers=len(signed),
        )


def held_out_measure(judge: ClassifierJudge, pairs: Sequence[PreferencePair], attribute: str) -> Measure:
    """Measure a judge on pairs that it was not fitted on, as a user meets it: by its scores."""
    scores = judge.score([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs], attribute)
    probabilities = np.array([score.score for score in scores], dtype=np.float64)
    return Measure.of(np.log(probabilities) - np.log1p(-probabilities))


def held_out_reliability(judge: ClassifierJudge, pairs: Sequence[PreferencePair], attribute: str) -> list[Bin]:
    """Scores of held-out answers against what they are."""
    scores = judge.score([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs], attribute)
    return reliability([float(score.score or 0.0) for score in scores], [1] * len(pairs) + [0] * len(pairs))


@dataclass(frozen=True)
class DimensionReport:
    """What one dimension's fit came to.

    Attributes:
        c, temperature: chosen by cross-validation on the train split.
        held_out, bins: of the judge as it is stored, on questions that it was not fitted on.
        crossed: all pairs, each by a model that has not seen its question.
    """

    c: float
    temperature: float
    held_out: Measure
    bins: Sequence[Bin]
    crossed: Measure


def accuracy_table(reports: Mapping[str, DimensionReport]) -> str:
    """A line a dimension: held-out questions, then all pairs; the accuracy with its binomial standard error."""
    head = ["dim", "C", "held out: accuracy", "n", "floor", "ranking", "log loss"]
    head += ["all pairs, 5-fold: accuracy", "ranking", "log loss", "n"]
    rows = []
    for dimension, report in reports.items():
        held, crossed, floor = report.held_out, report.crossed, FLOORS[dimension]
        error = (held.accuracy * (1 - held.accuracy) / held.n_answers) ** 0.5
        verdict = "met" if held.accuracy >= floor else "MISS"
        held_out = [f"{held.accuracy:.3f}±{error:.3f}", f"{held.n_answers}", f"{floor:.2f} {verdict}"]
        held_out += [f"{held.pair_ranking:.3f}", f"{held.log_loss:.3f}"]
        all_pairs = [f"{crossed.accuracy:.3f}", f"{crossed.pair_ranking:.3f}", f"{crossed.log_loss:.3f}"]
        rows.append([dimension, f"{report.c:g}", *held_out, *all_pairs, f"{crossed.n_answers}"])
    return aligned(head, rows)


def reliability_table(bins: Mapping[str, Sequence[Bin]]) -> str:
    """Held-out answers by score: how many, their mean score, and the share that speaks for the first pole."""
    head = ["dim", "held-out answers by score", "n", "mean score", "share of the first pole"]
    rows = []
    for dimension, some in bins.items():
        for b in some:
            rows.append([dimension, f"{b.low:.1f} to {b.high:.1f}", f"{b.n}", f"{b.mean_score:.2f}", f"{b.share:.2f}"])
        rows.append([dimension, "expected calibration error", "", "", f"{calibration_error(some):.3f}"])
    return aligned(head, rows, n_text=2)
