"""What can't be had better in one respect without being worse in another."""

from __future__ import annotations

import math
from collections.abc import Sequence


def perplexity(log_prob: float, n_tokens: int) -> float:
    """``exp(-log_prob / n_tokens)``, of texts with a log-probability in nats in all; nan for no token."""
    return math.exp(min(700.0, -log_prob / n_tokens)) if n_tokens else math.nan


def pareto_front(
    points: Sequence[tuple[float | None, float | None]], *, more_is_better: tuple[bool, bool] = (True, True)
) -> list[int]:
    """Indices of the points that no other is at least as good as in both respects and better in one.

    Equal points are on the front together; one with ``None``, nan or an infinity is on none.

    Args:
        points: two measures each.
        more_is_better: of each measure; ``(False, True)``: perplexity against adherence.

    Returns:
        in the order of the first measure, best first.
    """
    signs = [1.0 if more else -1.0 for more in more_is_better]
    known = [
        (signs[0] * a, signs[1] * b, i)
        for i, (a, b) in enumerate(points)
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    ]
    known.sort(key=lambda each: (-each[0], -each[1], each[2]))
    front: list[tuple[float, float, int]] = []
    for point in known:
        # Of those before it, all at least as good in the first respect, the last one kept is best in the second.
        if not front or point[1] > front[-1][1] or point[:2] == front[-1][:2]:
            front.append(point)
    return [index for _, _, index in front]
