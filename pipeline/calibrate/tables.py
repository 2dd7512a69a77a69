"""What a calibration says: one table, notes on what could not be told, the lines for the job file."""

from __future__ import annotations

import math
from collections.abc import Iterator

from evaluation.statistics.dose import Response, shown_ratio
from evaluation.statistics.linear import Effect
from evaluation.tables import aligned
from pipeline.calibrate.run import Asked, Calibration, Check


def report(found: Calibration, asked: Asked) -> str:
    """The table, and what is to be said beside it."""
    header = ["attribute", "was", "lift", "most", "lift", "even", "lift", "perplexity"]
    if found.mixed is not None:
        header.append("chosen")
    if found.check is not None:
        header += ["slope", "Spearman", "monotone", "lift", "at weight"]
    return "\n".join([aligned(header, [_row(found, name) for name in found.attributes.names]), *_said(found, asked)])


def _row(found: Calibration, name: str) -> list[str]:
    lift, chosen = found.lifts[name], found.choice.of[name]
    row = [
        name,
        _strength(found.now[name]),
        _at(lift, found.now[name]),
        _strength(chosen.most),
        _at(lift, chosen.most),
        _strength(chosen.strength),
        _at(lift, chosen.strength),
        shown_ratio(_effect(found.log_perplexities[name], chosen.strength)),
    ]
    if found.mixed is not None:
        row.append(_strength(found.strengths[name]))
    if found.check is not None:
        seen = found.check.seen[name]
        monotone = {None: "-", True: "yes", False: "no"}[seen.curve.monotone]
        spearman = "-" if seen.curve.spearman is None else f"{seen.curve.spearman:.2f}"
        row += [seen.curve.slope.shown, spearman, monotone, seen.lift.shown, f"{seen.weight:.2f}"]
    return row


def _said(found: Calibration, asked: Asked) -> Iterator[str]:
    """In lines: what it was measured on, what was chosen, what can't be told."""
    yield "lift: judged score over the reference's; perplexity: as times the reference's; 95 % intervals, by prompt"
    yield (f"most: the largest strength within x{math.exp(found.allowed):.3f} of the reference's perplexity, "
           f"{found.perplexity:.2f} on the pilot's {found.size.pilot} prompts")  # fmt: skip
    if asked.base == "prompting":
        yield f"that is x{asked.budget:g} of prompting's, which is {shown_ratio(found.base)} of the reference's"
    yield from _limits(found, asked)
    if found.mixed is not None:
        points = zip(found.mixed.lift.strengths[1:], found.mixed.lift.measured, found.mixed.log_perplexity.measured,
                     strict=True)  # fmt: skip
        curve = "; ".join(f"{factor:g} times: {lift.shown} {shown_ratio(cost)}" for factor, lift, cost in points)
        yield f"in the job's own mixtures these strengths are shared out by weight; {curve}"
        yield f"chosen: {found.mixed.factor:.2f} times the even ones, the most within the budget"
    if found.check is None:
        return
    yield f"slope and what follows: the job's personas at the chosen strengths, on {found.size.check} other prompts"
    yield f"there: {_spread(found.check, found.allowed)}"
    if found.before is not None:
        yield f"there, at the strengths that the job has: {_spread(found.before, found.allowed)}"
    seen = found.check.seen
    flat = [name for name, each in seen.items() if not _above_0(each.curve.slope, where_unknown=True)]
    if flat:
        yield f"note: on those prompts the slope of {', '.join(flat)} is not told apart from 0"
    uneven = [name for name, each in seen.items() if each.curve.monotone is False]
    if uneven:
        yield f"note: not monotone in its weight: {', '.join(uneven)}"


def _spread(check: Check, allowed: float) -> str:
    """How far apart attributes are, and what it costs."""
    slopes = [each.curve.slope.value for each in check.seen.values()]
    lifts = [each.lift.value for each in check.seen.values()]
    parts = []
    for what, values in (("slopes", slopes), ("lifts", lifts)):
        known = [value for value in values if value is not None]
        parts += [f"{what} from {min(known):+.2f} to {max(known):+.2f}"] if known else []
    return ", ".join([*parts, f"perplexity {shown_ratio(check.cost)}{_over(check.cost, allowed)}"])


def _limits(found: Calibration, asked: Asked) -> Iterator[str]:
    """What bounded the choice."""
    choice = found.choice
    if choice.lift is None:
        yield f"nothing is chosen: by {asked.texts} texts each no lift is told apart from 0 within the budget"
    elif choice.limit is not None:
        yield f"even: the smallest strength with a lift of {choice.lift:+.2f}, the most that {choice.limit} has there"
    else:
        yield f"even: the smallest strength with the lift asked for, {choice.lift:+.2f}, or the most"
    for name, each in choice.of.items():
        largest = found.lifts[name].strengths[-1]
        if each.most is None:
            yield f"note: {name}: no strength is within the budget; it keeps its own{_first(found, name)}"
        elif not each.told_apart:
            yield f"note: {name}: no lift in the budget is told apart from 0; it keeps its own{_first(found, name)}"
        elif each.most == largest:
            yield f"note: {name}: the budget reaches beyond {largest:g}, the largest strength tried; see --strengths"
    unsure = [
        name for name, each in choice.of.items()
        if each.told_apart and _over(_effect(found.log_perplexities[name], each.strength), found.allowed)
    ]  # fmt: skip
    if unsure:
        yield f"note: by their intervals these may be over the budget, or under it: {', '.join(unsure)}; see --texts"
    for name, why in found.attributes.left.items():
        yield f"note: {name} keeps its strength: {why}"


def _first(found: Calibration, name: str) -> str:
    """Where an attribute is told apart first, of the strengths tried."""
    lift, cost = found.lifts[name], found.log_perplexities[name]
    for strength, up, paid in zip(lift.strengths[1:], lift.measured, cost.measured, strict=True):
        if _above_0(up, where_unknown=False):
            return f" (told apart first at {strength:g}: {up.shown}, {shown_ratio(paid)})"
    return " (told apart at none that was tried)"


def comment(found: Calibration, asked: Asked, command: str, date: str) -> list[str]:
    """What stands above the strengths in the job file: when, by which command, the curves, what was found."""
    lines = [
        f"{date}: {command}",
        f"by strength, on {found.size.pilot} prompts: lift of the judged score; perplexity as times the reference's "
        f"{found.perplexity:.2f}",
    ]
    lines += [f"  {name}  {curve(found, name)}" for name in found.attributes.names]
    lift = (
        ""
        if found.choice.lift is None
        else f"lift {found.choice.lift:+.2f} each{', or the most,' if asked.lift else ','} "
    )
    times = "" if found.mixed is None else f"{found.mixed.factor:.2f} times in the job's mixtures, "
    lines.append(f"chosen for: {lift}{times}within x{asked.budget:g} of {asked.base}'s perplexity")
    if found.check is not None:
        slopes = "; ".join(f"{name} {each.curve.slope.shown}" for name, each in found.check.seen.items())
        lines.append(
            f"on {found.size.check} other prompts: slopes {slopes}; perplexity {shown_ratio(found.check.cost)}"
        )
    return lines


def curve(found: Calibration, name: str) -> str:
    """``0.5: +0.20±.08 x0.97±.03; 1: ...``."""
    lift, cost = found.lifts[name], found.log_perplexities[name]
    points = zip(lift.strengths[1:], lift.measured, cost.measured, strict=True)
    return "; ".join(f"{strength:g}: {up.shown} {shown_ratio(paid)}" for strength, up, paid in points)


def record(found: Calibration, asked: Asked, command: str, date: str) -> dict[str, object]:
    """The same for programs."""
    attributes = {
        name: {
            "strength": found.strengths[name],
            "was": found.now[name],
            "most": found.choice.of[name].most,
            "told_apart": found.choice.of[name].told_apart,
            "curve": [
                {"strength": strength, "lift": vars(lift), "log_perplexity_ratio": vars(cost)}
                for strength, lift, cost in zip(
                    found.lifts[name].strengths[1:],
                    found.lifts[name].measured,
                    found.log_perplexities[name].measured,
                    strict=True,
                )
            ],
            "check": _seen(found.check, name),
            "before": _seen(found.before, name),
        }
        for name in found.attributes.names
    }
    return {
        "command": command,
        "date": date,
        "machines": list(found.machines),
        "asked": vars(asked),
        "prompts": {"pilot": found.size.pilot, "check": found.size.check},
        "perplexity": found.perplexity,
        "base_log_ratio": vars(found.base),
        "lift": found.choice.lift,
        "factor": None if found.mixed is None else found.mixed.factor,
        "attributes": attributes,
        "left": found.attributes.left,
        "check_log_perplexity_ratio": None if found.check is None else vars(found.check.cost),
        "before_log_perplexity_ratio": None if found.before is None else vars(found.before.cost),
    }


def _seen(check: Check | None, name: str) -> dict[str, object] | None:
    if check is None:
        return None
    seen = check.seen[name]
    found = {"slope": vars(seen.curve.slope), "spearman": seen.curve.spearman, "monotone": seen.curve.monotone}
    return {**found, "lift": vars(seen.lift), "weight": seen.weight}


def _effect(response: Response, strength: float) -> Effect:
    return response.at(strength) if strength <= response.strengths[-1] else Effect(None)


def _at(response: Response, strength: float | None) -> str:
    return "-" if strength is None else _effect(response, strength).shown


def _strength(strength: float | None) -> str:
    return "-" if strength is None else f"{strength:.2f}"


def _over(cost: Effect, allowed: float) -> str:
    """What to say of a log-ratio of perplexities that is, or may be, more than is allowed."""
    if cost.value is None:
        return ""
    if cost.half_width is None:
        return ", without an interval"
    if cost.value - cost.half_width > allowed:
        return ", which is over the budget"
    return ", which may be over the budget" if cost.value + cost.half_width > allowed else ""


def _above_0(effect: Effect, *, where_unknown: bool) -> bool:
    if effect.value is None:
        return where_unknown
    return effect.half_width is not None and effect.value > effect.half_width
