"""The preference models' own opinion of a text: shown beside judges, never counted as one.

The score is ``sigmoid(log r_i(y) / n)`` of a text of n tokens, ``log r_i`` being the log-ratio that the decoder
wrote on the row: 0.5 where the preference model finds the text as likely as the reference does. It tells what the
generator steers by, so a high score is no evidence that a reader would agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.items import Item
from evaluation.scores import Score, Status


class LogRatioJudge:
    """Scores every attribute that a row has a log-ratio of."""

    name = "log-ratio"
    version = "1"

    def knows(self, attribute: str) -> bool:
        """See :class:`evaluation.items.Judge`."""
        return True

    def judge(self, items: Sequence[Item], attributes: Sequence[str]) -> dict[str, list[Score]]:
        """See :class:`evaluation.items.Judge`; unscored (``failed``) where the row has no log-ratio."""
        return {name: [_score(item, name) for item in items] for name in attributes}


def _score(item: Item, attribute: str) -> Score:
    ratio = item.log_ratios.get(attribute)
    if ratio is None or not math.isfinite(ratio):
        return Score(None, Status.FAILED, f"the row has no log-ratio of {attribute}")
    return Score(0.5 * (1.0 + math.tanh(0.5 * ratio)), Status.OK)
