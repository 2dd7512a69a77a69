"""The judge beside an adapter: fitted on the adapter's own pairs, see :mod:`evaluation.fit.own_judge`.

It lies in the adapter's folder, so that whoever copies or publishes the adapter has it. What it is worth stands on
its card, and in its name: a judge that tells its held-out pairs apart too poorly has another one, whose scores are
shown and never counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluation.items import OWN, OWN_UNPROVEN
from evaluation.judges.weights_card import JudgeWeightsError, card_path, read_card

WEIGHTS_FILE = "judge.safetensors"
CARD_FILE = "judge.json"


@dataclass(frozen=True)
class OwnJudge:
    """What the card of a judge beside an adapter says.

    Attributes:
        folder: of the adapter.
        attribute: that it was fitted for; a job may call it by another name.
        counted: whether its scores may be averaged and let texts pass.
        worth: what it is worth, in a sentence; of one that is not counted, why.
    """

    folder: Path
    attribute: str
    counted: bool
    worth: str

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / WEIGHTS_FILE

    @property
    def name(self) -> str:
        """The judge's name, as judgments record it."""
        return OWN if self.counted else OWN_UNPROVEN


def own_judge(folder: Path) -> OwnJudge | None:
    """The judge in an adapter's folder; ``None`` where there is none.

    Raises:
        JudgeWeightsError: there is one, and it is damaged or of another format.
    """
    weights = folder / WEIGHTS_FILE
    if not weights.is_file() and not card_path(weights).is_file():
        return None
    card = read_card(weights)
    attribute, counted, worth = (card.get(name) for name in ("name", "counted", "worth"))
    alone = len(card["dimensions"]) == 1
    if not alone or not isinstance(attribute, str) or not isinstance(counted, bool) or not isinstance(worth, str):
        raise JudgeWeightsError(f"{card_path(weights)} is no card of an adapter's own judge")
    return OwnJudge(folder, attribute, counted, " ".join(worth.split()))
