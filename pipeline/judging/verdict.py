"""Whether judges behind endpoints have scored enough, else why not, and what a command ends with then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from evaluation.items import label_of
from evaluation.judges.endpoint import EndpointJudge
from personas.secrets import masked
from personas.text import one_line, storable
from pipeline.exit_status import ExitStatus
from pipeline.judging.against import Against

# Share of a judge's judgments that may lack a score where nobody says otherwise.
MOST_UNSCORED = 0.05

_ONCE = {ExitStatus.BUDGET_SPENT: " once it is raised", ExitStatus.UNSCORED: " once that is mended"}
# Of several judges' endings, the first of these is the command's.
_ORDER = (ExitStatus.UNSCORED, ExitStatus.BUDGET_SPENT, ExitStatus.TRY_AGAIN)


@dataclass(frozen=True)
class Verdict:
    """Too much is unscored: why, in one line, and what the command ends with."""

    why: str
    status: ExitStatus


def endpoint_of(judge: Any) -> EndpointJudge | None:
    """The judge as one that calls an endpoint; ``None``: it does not."""
    inner = judge.inner if isinstance(judge, Against) else judge
    return inner if isinstance(inner, EndpointJudge) else None


def verdict(judges: Sequence[Any], judgments: pa.Table, most_unscored: float) -> Verdict | None:
    """What judges behind endpoints have left unscored; ``None``: no more than may be. Other judges are not looked at.

    Args:
        judges: as they were asked, just now.
        judgments: of the texts that count.
        most_unscored: share of each judge's judgments; those that nobody could give (no words to judge) don't count.
    """
    found = []
    for judge in judges:
        asked = endpoint_of(judge)
        if asked is None:
            continue
        label = storable(label_of(judge))
        n, reasons = _missing(judgments, label, asked.nothing_to_judge)
        if sum(reasons.values()) > most_unscored * n:
            found.append(_of_one(label, asked, reasons, n, most_unscored))
    found.sort(key=lambda each: _ORDER.index(each.status))
    return Verdict("; ".join(each.why for each in found), found[0].status) if found else None


def status_of(judge: EndpointJudge) -> ExitStatus:
    """What a command ends with that needs the scores which this judge could not give."""
    if judge.out_of_budget:
        return ExitStatus.BUDGET_SPENT
    if judge.ended is not None:
        return ExitStatus.UNSCORED if judge.incurable else ExitStatus.TRY_AGAIN
    return ExitStatus.TRY_AGAIN if judge.unanswered[True] > judge.unanswered[False] else ExitStatus.UNSCORED


def _missing(
    judgments: pa.Table, label: str, nothing_to_judge: Collection[tuple[str, str]]
) -> tuple[int, Counter[str]]:
    """How many judgments a judge was to give, and the reasons of those without a score."""
    n, reasons = 0, Counter[str]()
    for row in judgments.select(["row_id", "attribute", "judge", "score", "status", "rationale"]).to_pylist():
        if row["judge"] != label or (row["row_id"], row["attribute"]) in nothing_to_judge:
            continue
        n += 1
        if row["score"] is None:
            reasons[row["rationale"] or row["status"]] += 1
    return n, reasons


def _of_one(label: str, judge: EndpointJudge, reasons: Counter[str], n: int, most_unscored: float) -> Verdict:
    status, reason = status_of(judge), judge.stopped
    if reason is None:
        ((common, times),) = reasons.most_common(1)
        reason = f"{times} times {one_line(masked(common))[:200]}"
    first = judge.first_error
    told = f" (the server's first message: {first})" if first and first not in reason else ""
    return Verdict(
        f"judge {label}: {sum(reasons.values())} of {n} judgments are missing, more than max_unscored_fraction "
        f"{most_unscored:g} allows: {reason}{told}; the same command asks for the rest{_ONCE.get(status, '')}",
        status,
    )
