"""What goes to workers on other machines: places that each of them finds, in place of paths of the driver's.

An adapter that ships is found in the worker's own installation; what the driver has copied from a store, the worker
copies, too. A folder of the driver's stays as it is: workers have to see it there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mpg.models.hub import Place
from pipeline.beam.work import JudgeWork
from pipeline.job.model import SHIPPED_ADAPTERS
from pipeline.plan.cells import Sources
from pipeline.plan.stored import StoredPlan
from pipeline.store.copies import here, url_of
from pipeline.store.places import expanded, is_url

_SHIPPED = "shipped:"


def packed(place: str) -> str:
    """A place as it travels."""
    path = Path(place)
    if path.is_relative_to(SHIPPED_ADAPTERS):
        return f"{_SHIPPED}{path.relative_to(SHIPPED_ADAPTERS).as_posix()}"
    return url_of(path) or place


def unpacked(place: str) -> str:
    """The place on this machine. Raises OSError, ValueError: it can't be had from its store."""
    if place.startswith(_SHIPPED):
        return str(SHIPPED_ADAPTERS / place.removeprefix(_SHIPPED))
    return str(here(expanded(place))) if is_url(place) else place


def packed_sources(sources: Sources) -> Sources:
    """Sources as they travel."""
    return _with(sources, packed)


def packed_plan(plan: StoredPlan) -> StoredPlan:
    """A plan as it travels."""
    return replace(plan, rule=replace(plan.rule, sources=packed_sources(plan.rule.sources)))


def unpacked_sources(sources: Sources) -> Sources:
    """The same on this machine. Raises as :func:`unpacked`."""
    return _with(sources, unpacked)


def packed_judge(work: JudgeWork) -> JudgeWork:
    """What a judge has to do, as it travels."""
    own = work.judge.own
    if own is None:
        return work
    place = packed(str(own.folder))
    # A Path would make one slash of the two in a URL.
    return replace(work, folder=place) if place != str(own.folder) else work


def unpacked_judge(work: JudgeWork) -> JudgeWork:
    """The same on this machine. Raises as :func:`unpacked`."""
    own = work.judge.own
    if own is None or work.folder is None:
        return work
    return replace(work, judge=replace(work.judge, own=replace(own, folder=Path(unpacked(work.folder)))))


def _with(sources: Sources, change: Callable[[str], str]) -> Sources:
    def moved(place: Place) -> Place:
        return replace(place, source=change(place.source))

    def all_of(named: tuple[tuple[str, Place], ...]) -> tuple[tuple[str, Place], ...]:
        return tuple((name, moved(place)) for name, place in named)

    return replace(
        sources,
        model=moved(sources.model),
        adapters=all_of(sources.adapters),
        references=all_of(sources.references),
    )
