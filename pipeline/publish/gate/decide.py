"""The gate itself: a data set against the last revision, or, where there is none, in itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.job.gate_section import Gate
from pipeline.judging.verdict import MOST_UNSCORED
from pipeline.plan.errors import RunError
from pipeline.publish.gate.measured import Measured, repeats_of
from pipeline.publish.gate.previous import previous_of
from pipeline.publish.gate.rules import Allowed, Refusal, absolute, against, unknown
from pipeline.publish.hub.checks import whole_data_set
from pipeline.publish.hub.errors import PublishError
from pipeline.publish.report.read import AllRejected, ReportError

_MOST_REJECTED = 0.1  # of a data set without a job, as of a job that does not say


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        refusals: why not; none: it may be published.
        against: the last revision, in words; ``None``: there is none, and only absolute thresholds counted.
        changes: what was and is: (what, was, is), ``was`` being ``None`` where there is no last revision.
        notes: what somebody should know, a line each.
    """

    refusals: tuple[Refusal, ...]
    against: str | None
    changes: tuple[tuple[str, str | None, str], ...]
    notes: tuple[str, ...]


def decide(folder: Path, last: str | None, gate: Gate | None = None) -> Decision:
    """Look at a data set and at the last revision.

    Args:
        folder: of the data set, or its URL.
        last: see :func:`pipeline.publish.gate.previous.previous_of`; ``None``: there is none.
        gate: the thresholds; ``None``: those of the data set's job.

    Raises:
        RunError: either is not whole or can't be read, or the Hub can't be asked.
    """
    with whole_data_set(folder) as copy:
        try:
            new = _measured(copy, str(folder))
        except AllRejected as problem:
            n = problem.n
            none = Refusal("max_rejected_fraction", f"it has no texts: {problem.why}", found=1.0)
            return Decision((none,), None, (("rows", None, "0"), ("rejected rows", None, f"{n} of {n}")), ())
        place, words = (None, "--against is left out") if last is None else previous_of(last, new.interval)
        allowed = _allowed(new, gate)
        if place is None:
            repeats, _ = repeats_of(new, None)
            note = f"no last revision ({words}): it is judged by absolute thresholds alone, as a first publication"
            refusals = tuple(absolute(new, allowed, repeats))
            return Decision(refusals, None, tuple(_changes(new, None, repeats, None)), (note,))
        if _same_place(place, folder):
            raise PublishError(f"--against {last}: is the data set itself; give the one before it, or none")
        with _whole_last(place, words) as theirs:
            old = _measured(theirs, words)
            return _against(new, old, allowed)


def _against(new: Measured, old: Measured, allowed: Allowed) -> Decision:
    repeats, before = repeats_of(new, old)
    assert before is not None
    refusals, notes = list(absolute(new, allowed, repeats)), []
    if new.files == old.files and new.files:
        notes.append(f"{old.name} is this very data set: it is published already")
    else:
        refusals += against(new, old, allowed.gate, (repeats, before))
        same = sum(new.files.get(name) == digest for name, digest in old.files.items() if name.startswith("data/"))
        if same:
            notes.append(f"{same} files of texts are the last revision's own: is it another interval's?")
        few = unknown(new, old, allowed.gate)
        if few:
            notes.append(
                "too few prompts, or too low a mean, to tell a fall of adherence from chance (only one below the last "
                f"mean's own interval is refused): {', '.join(few)}"
            )
    return Decision(tuple(refusals), old.name, tuple(_changes(new, old, repeats, before)), tuple(notes))


@contextmanager
def _whole_last(place: Path, words: str) -> Iterator[Path]:
    """The last revision's files, on this machine. Raises PublishError, naming it."""
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(whole_data_set(place))
        except RunError as error:
            raise PublishError(f"--against {words}: {error}", error.status) from error
        yield copy


def _measured(folder: Path, name: str) -> Measured:
    try:
        return Measured.at(folder, name)
    except AllRejected:
        raise
    except ReportError as error:
        raise PublishError(f"{name}: {error}" if name not in str(error) else str(error)) from error


def _allowed(new: Measured, gate: Gate | None) -> Allowed:
    """The thresholds: those given, else of the data set's own job, else the defaults."""
    job = new.of.job
    if gate is None:
        try:
            gate = Gate.model_validate(job.get("gate") or {})
        except ValidationError as error:
            raise PublishError(f"{new.name}/job.json: gate: {error.errors()[0]['msg']}; give --job") from error
    rejected, unscored = job.get("max_rejected_fraction"), job.get("max_unscored_fraction")
    return Allowed(
        gate,
        _first(gate.max_rejected_fraction, rejected, _MOST_REJECTED),
        _first(gate.max_unscored_fraction, unscored, MOST_UNSCORED),
    )


def _first(*values: object) -> float:
    return next(float(each) for each in values if isinstance(each, int | float))


def _same_place(place: Path, folder: Path) -> bool:
    return str(place) == str(folder) or (
        isinstance(place, Path) and isinstance(folder, Path) and place.resolve() == folder.resolve()
    )


def _changes(
    new: Measured, old: Measured | None, repeats: tuple[int, int], before: tuple[int, int] | None
) -> Sequence[tuple[str, str | None, str]]:
    """What of both is worth a line: counts, measures by persona, prompts, and what differs of how they were made."""

    def both(what: str, of: Any) -> tuple[str, str | None, str]:
        return what, None if old is None else of(old), of(new)

    def adherence(name: str) -> Any:
        return lambda each: each.adherence[name].shown if name in each.adherence else "-"

    def persona_perplexity(name: str) -> Any:
        return lambda each: f"{each.personas[name].perplexity:.3g}" if name in each.personas else "-"

    def share(found: tuple[int, int]) -> str:
        return f"{found[0]} of {found[1]}"

    names = list(dict.fromkeys([*new.personas, *(old.personas if old is not None else ())]))
    prompts = set(new.of.prompts)
    found = [
        both("rows", lambda each: str(each.rows)),
        both("prompts", lambda each: str(len(each.of.prompts))),
        both("rejected rows", lambda each: share(each.rejected)),
        both("judgments without a score", lambda each: share(each.unscored)),
        both("perplexity", lambda each: f"{each.perplexity:.3g}"),
        ("near-duplicates", None if before is None else share(before), share(repeats)),
        *(both(f"adherence of {name}", adherence(name)) for name in names),
        *(both(f"perplexity of {name}", persona_perplexity(name)) for name in names),
    ]
    if old is not None:
        there = set(old.of.prompts)
        found.append(("prompts of one alone", str(len(there - prompts)), str(len(prompts - there))))
        for what in dict.fromkeys([*new.made_with, *old.made_with]):
            was, now = (each.made_with.get(what, "unknown") for each in (old, new))
            if was != now:
                found.append((what, was, now))
    return found
