"""How well a judge tells the answers of pairs apart, and the tables that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation.judges.poles import DIMENSIONS, PoleJudge
from evaluation.statistics.calibration import Bin, calibration_error, reliability
from evaluation.tables import aligned
from personas.preferences import PreferencePair


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


def held_out_scores(judge: PoleJudge, pairs: Sequence[PreferencePair], attribute: str) -> np.ndarray:
    """Of a judge as a user meets it: float64 [2 * pairs], all chosen before all rejected."""
    scores = judge.score([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs], attribute)
    return np.array([score.score for score in scores], dtype=np.float64)


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Of probabilities, one by one."""
    return np.asarray(np.log(probabilities) - np.log1p(-probabilities))


def held_out_measure(judge: PoleJudge, pairs: Sequence[PreferencePair], attribute: str) -> Measure:
    """Measure a judge on pairs that it was not fitted on."""
    return Measure.of(log_odds(held_out_scores(judge, pairs, attribute)))


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

    @classmethod
    def of(
        cls, judge: PoleJudge, dimension: str, held_out: Sequence[PreferencePair], *, c: float, temperature: float,
        crossed: Measure,
    ) -> DimensionReport:  # fmt: skip
        """Measure the judge on pairs of a dimension whose questions it was not fitted on."""
        scores = held_out_scores(judge, held_out, DIMENSIONS[dimension][0])
        labels = np.repeat([1, 0], len(held_out))
        bins = reliability(scores.tolist(), labels.tolist())
        return cls(c, temperature, Measure.of(log_odds(scores)), bins, crossed)

    def on_card(self, dimension: str, n_train_pairs: int) -> dict[str, Any]:
        """What the card says of the dimension."""
        return {
            "poles": list(DIMENSIONS[dimension]),
            "c": self.c,
            "temperature": self.temperature,
            "reliability": [asdict(each) for each in self.bins],
            "calibration_error": calibration_error(self.bins),
            "n_train_pairs": n_train_pairs,
            "held_out": asdict(self.held_out),
            "cross_validated_all_pairs": asdict(self.crossed),
        }


def accuracy_table(reports: Mapping[str, DimensionReport]) -> str:
    """A line a dimension: held-out questions, then all pairs; the accuracy with its binomial standard error."""
    head = ["dim", "C", "held out: accuracy", "n", "ranking", "log loss"]
    head += ["all pairs, 5-fold: accuracy", "ranking", "log loss", "n"]
    rows = []
    for dimension, report in reports.items():
        held, crossed = report.held_out, report.crossed
        held_out = [with_error(held), f"{held.n_answers}", f"{held.pair_ranking:.3f}", f"{held.log_loss:.3f}"]
        all_pairs = [f"{crossed.accuracy:.3f}", f"{crossed.pair_ranking:.3f}", f"{crossed.log_loss:.3f}"]
        rows.append([dimension, f"{report.c:g}", *held_out, *all_pairs, f"{crossed.n_answers}"])
    return aligned(head, rows)


def with_error(measure: Measure) -> str:
    """Accuracy with its binomial standard error."""
    error = (measure.accuracy * (1 - measure.accuracy) / measure.n_answers) ** 0.5
    return f"{measure.accuracy:.3f}±{error:.3f}"


def reliability_table(bins: Mapping[str, Sequence[Bin]]) -> str:
    """Held-out answers by score: how many, their mean score, and the share that speaks for the first pole."""
    head = ["dim", "held-out answers by score", "n", "mean score", "share of the first pole"]
    rows = []
    for dimension, some in bins.items():
        for b in some:
            rows.append([dimension, f"{b.low:.1f} to {b.high:.1f}", f"{b.n}", f"{b.mean_score:.2f}", f"{b.share:.2f}"])
        rows.append([dimension, "expected calibration error", "", "", f"{calibration_error(some):.3f}"])
    return aligned(head, rows, n_text=2)
