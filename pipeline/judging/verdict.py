"""Whether judges behind endpoints have scored enough, else why not, and what a command ends with then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from evaluation.items import Item, label_of
from evaluation.judges.endpoint import EndpointJudge
from personas.secrets import masked
from personas.text import one_line, storable
from pipeline.exit_status import ExitStatus
from pipeline.judging.against import Against

# Share of a judge's judgments that may lack a score where nobody says otherwise.
MOST_UNSCORED = 0.05
# Reasons that are told apart, by their words: the one that is said is the most frequent of these.
_MOST_REASONS = 1000

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


# Row ids -> the texts of those that are known.
ItemsOf = Callable[[Collection[str]], Mapping[str, Item]]


@dataclass
class _Missing:
    """How many judgments a judge was to give; how many of them lack a score, and why."""

    n: int = 0
    n_unscored: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, n: int, reasons: Iterable[str]) -> None:
        self.n += n
        for reason in reasons:
            self.n_unscored += 1
            if reason in self.reasons or len(self.reasons) < _MOST_REASONS:
                self.reasons[reason] += 1


class Unscored:
    """What judges behind endpoints have left unscored, added up piece by piece. Other judges are not looked at.

    Args:
        asked: judges, as they were asked, just now, each with the attributes.
    """

    def __init__(self, asked: Iterable[tuple[Any, Sequence[str]]]) -> None:
        self._of = [(judge, names, _Missing()) for judge, names in asked if endpoint_of(judge) is not None]

    def add(self, judgments: pa.Table, items: ItemsOf) -> None:
        """Judgments of some of the texts that count; those that nobody could give (no words to judge) don't."""
        for judge, names, missing in self._of:
            mine = judgments.filter(pc.equal(judgments.column("judge"), storable(label_of(judge))))
            rows = mine.filter(pc.is_null(mine.column("score")))
            rows = rows.select(["row_id", "attribute", "status", "rationale"]).to_pylist()
            known = items({row["row_id"] for row in rows}) if rows else {}
            nothing = {row_id: set(map(storable, judge.unjudgeable(item, names))) for row_id, item in known.items()}
            left = [row for row in rows if row["attribute"] not in nothing.get(row["row_id"], ())]
            missing.add(mine.num_rows - len(rows) + len(left), (row["rationale"] or row["status"] for row in left))

    def verdict(self, most_unscored: float) -> Verdict | None:
        """Whether it is more than may be, and why; ``None``: it is not.

        Args:
            most_unscored: share of each judge's judgments.
        """
        found = [
            _of_one(judge, missing, most_unscored)
            for judge, _, missing in self._of
            if missing.n_unscored > most_unscored * missing.n
        ]
        found.sort(key=lambda each: _ORDER.index(each.status))
        return Verdict("; ".join(each.why for each in found), found[0].status) if found else None


def status_of(judge: EndpointJudge) -> ExitStatus:
    """What a command ends with that needs the scores which this judge could not give."""
    if judge.out_of_budget:
        return ExitStatus.BUDGET_SPENT
    if judge.ended is not None:
        return ExitStatus.UNSCORED if judge.incurable else ExitStatus.TRY_AGAIN
    return ExitStatus.TRY_AGAIN if judge.unanswered[True] > judge.unanswered[False] else ExitStatus.UNSCORED


def _of_one(judge: Any, missing: _Missing, most_unscored: float) -> Verdict:
    asked = endpoint_of(judge)
    assert asked is not None
    status, reason = status_of(asked), asked.stopped
    if reason is None:
        ((common, times),) = missing.reasons.most_common(1)
        reason = f"{times} times {one_line(masked(common))[:200]}"
    first = asked.first_error
    told = f" (the server's first message: {first})" if first and first not in reason else ""
    return Verdict(
        f"judge {storable(label_of(judge))}: {missing.n_unscored} of {missing.n} judgments are missing, more than "
        f"max_unscored_fraction {most_unscored:g} allows: {reason}{told}; the same command asks for the "
        f"rest{_ONCE.get(status, '')}",
        status,
    )
