"""A judge for one's own attribute, fitted on the pairs that its adapter was trained on.

It is the embedded classifier once more: the same features, one regression. It was fitted on the adapter's own pairs, so
it can say whether a text is on the side of the chosen answers or of the rejected ones, and not whether the pairs
mean what their owner thinks. What it does on questions that it has not seen stands on its card; where that is poor, or
can't be known, its scores are not counted.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from scipy.stats import norm

from evaluation.features.embedding import Embedder
from evaluation.fit.regression import EMBEDDING_SCALE, calibrated, choose_c, fit, prepare
from evaluation.judges.classifier_weights import DimensionModel, Features, write_weights
from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE, OwnJudge
from evaluation.judges.poles import sigmoid
from evaluation.statistics.aggregate import COVERAGE
from evaluation.statistics.calibration import Bin, calibration_error, reliability
from personas.preferences import PreferencePair

VERSION = "1"
# Questions that a judge is fitted on at least: for five folds, and a regression that is worth the name.
LEAST_QUESTIONS = 10
# What the lower end of the accuracy's interval has to reach for a judge to be taken for one: half of the answers are
# right by chance, and six questions without a mistake are just enough.
BAR = 0.6
# Pairs looked at, at most: embedding takes 10 to 30 ms an answer, and more pairs moved the accuracy little.
MOST_PAIRS, MOST_HELD_OUT = 600, 200
CANDIDATE_C = (1.0, 4.0, 16.0)
_LIMITS = "reads style and topic words of texts like the pairs' answers; the sentence embedding knows English"


class NoJudge(ValueError):
    """There is nothing that a judge could be fitted on; one line with the remedy."""


@dataclass(frozen=True)
class HeldOut:
    """A judge on questions that it was not fitted on; of the answers, those that it has not seen either.

    Attributes:
        accuracy: answers on the right side of 0.5: the mean of the chosen ones' share and the rejected ones'.
        interval: of the accuracy, 95 % (Wilson 1927), each question counting once.
        n_answers, n_chosen, n_questions: measured; ``n_questions`` of the side that has fewer.
        pair_ranking: pairs whose chosen answer scores above the rejected one, among ``n_pairs``.
        log_loss: nats an answer; log 2 = 0.693 knows nothing.
    """

    accuracy: float
    interval: tuple[float, float]
    n_answers: int
    n_chosen: int
    n_questions: int
    pair_ranking: float
    n_pairs: int
    log_loss: float
    calibration_error: float
    reliability: list[Bin]


def fit_own_judge(
    name: str,
    train: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    folder: Path,
    *,
    embedder: Embedder,
    about: Mapping[str, Any],
) -> OwnJudge:
    """Fit a judge, measure it, and write it into its adapter's folder.

    Args:
        name: of the attribute that ``chosen`` answers carry.
        train, held_out: no question in both.
        about: copied to the card: description, data.

    Raises:
        NoJudge: too few questions to fit it on; nothing is written.
        OSError: it can't be written.
    """
    train, held_out = _some(train, MOST_PAIRS), _some(held_out, MOST_HELD_OUT)
    n_questions = len({_plain(pair.question) for pair in train})
    if n_questions < LEAST_QUESTIONS:
        raise NoJudge(
            f"{n_questions} questions to fit one on, and {LEAST_QUESTIONS} are needed; give pairs on more questions"
        )
    texts = list(dict.fromkeys(text for pair in train for text in (pair.chosen, pair.rejected)))
    answers = prepare(train, dict(zip(texts, embedder.embed(texts), strict=True)))
    c = choose_c(answers, CANDIDATE_C)
    model, divisor = calibrated(fit(answers.features, c=c), answers, c=c, cautious=True)
    measured = _measure(model, held_out, {_plain(text) for text in texts}, embedder)
    problem = why_poor(measured)
    worth = worth_of(measured, problem)
    card = {
        "version": VERSION,
        "name": name,
        "what": f"P({name}) of an answer, by one logistic regression on n-grams and a sentence embedding",
        **about,
        "counted": problem is None,
        "worth": worth,
        "fitted_on": f"the adapter's own pairs: {len(train)} on {n_questions} questions",
        "embedding_scale": EMBEDDING_SCALE,
        "scikit_learn": sklearn.__version__,
        "limits": _LIMITS,
        "dimensions": {
            name: {
                "poles": [name],
                "c": c,
                "temperature": divisor,
                "n_train_pairs": len(train),
                "held_out": None if measured is None else asdict(measured),
                "interval_must_begin_at": BAR,
            }
        },
    }
    scratch = folder / ".judge"  # or a full disk would leave half a judge
    try:
        write_weights(scratch / WEIGHTS_FILE, {name: model}, card)
        for file in (WEIGHTS_FILE, CARD_FILE):
            (scratch / file).replace(folder / file)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return OwnJudge(folder, name, problem is None, worth)


def why_poor(measured: HeldOut | None) -> str | None:
    """Why a judge is not taken for one; ``None``: it is."""
    if measured is None:
        return "no held-out answer that it had not seen, on either side"
    if measured.interval[0] < BAR:
        low, n = measured.interval[0], measured.n_questions
        return f"by {n} held-out questions its accuracy may be as low as {low:.2f}, and {BAR:g} is asked"
    return None


def worth_of(measured: HeldOut | None, problem: str | None) -> str:
    """What a judge is worth, in a sentence."""
    said = ["fitted on the adapter's own pairs"]
    if measured is not None:
        low, high = measured.interval
        said.append(
            f"held-out accuracy {measured.accuracy:.2f} ({low:.2f} to {high:.2f}) on {measured.n_answers} answers"
        )
    if problem is not None:
        return "; ".join([*said, f"not counted: {problem}"])
    return f"{'; '.join(said)}: it tells the pairs' two sides apart, no more"


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n, which never is a point: 10 of 10 are .72 to 1 (Wilson 1927)."""
    z = float(norm.ppf((1 + COVERAGE) / 2))
    centre, reach = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - reach) / (1 + z**2 / n), min(1.0, (centre + reach) / (1 + z**2 / n))


def _measure(
    model: DimensionModel, pairs: Sequence[PreferencePair], seen: Collection[str], embedder: Embedder
) -> HeldOut | None:
    """Of the model as it is stored; ``None`` where a side has no answer that was not seen."""
    if not pairs:
        return None
    n = len(pairs)
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    logits = model.logits(Features.of(texts, embedder))  # [2 * pairs], all chosen first
    new = np.array([_plain(text) not in seen for text in texts])
    labels = np.repeat([1, 0], n)
    right = np.where(labels > 0, logits > 0, logits < 0)
    sides = [new & (labels == side) for side in (1, 0)]
    questions = [len({_plain(pairs[int(i) % n].question) for i in np.flatnonzero(side)}) for side in sides]
    if not min(questions):
        return None
    accuracy = float(np.mean([right[side].mean() for side in sides]))
    fresh = new[:n] | new[n:]
    signed = np.where(labels > 0, logits, -logits)[new]
    bins = reliability(sigmoid(logits[new]).tolist(), labels[new].tolist())
    return HeldOut(
        accuracy=accuracy,
        interval=wilson(accuracy, min(questions)),
        n_answers=int(new.sum()),
        n_chosen=int(sides[0].sum()),
        n_questions=min(questions),
        pair_ranking=float((logits[:n] > logits[n:])[fresh].mean()),
        n_pairs=int(fresh.sum()),
        log_loss=float(np.logaddexp(0.0, -signed).mean()),
        calibration_error=calibration_error(bins),
        reliability=bins,
    )


def _some(pairs: Sequence[PreferencePair], most: int) -> list[PreferencePair]:
    """Different pairs with words on both sides, the same ones whatever their order is, and no more than so many."""

    def place(pair: PreferencePair) -> str:
        content = "\n".join((pair.question, pair.chosen, pair.rejected))
        return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()

    good = {pair for pair in pairs if all(any(map(str.isalnum, text)) for text in (pair.chosen, pair.rejected))}
    return sorted(good, key=place)[:most]


def _plain(text: str) -> str:
    """A text without what does not tell it from another: case and white space."""
    return " ".join(text.lower().split())
