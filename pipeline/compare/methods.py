"""What a method may have wrong: its decoder and curve, its own attributes, its models; which adapters are missing."""

from __future__ import annotations

from collections.abc import Iterator

from mpg.settings import TABLE
from personas.files import PersonaError
from personas.words import show
from pipeline.compare.arms import personas_of
from pipeline.compare.model import SINGLE, Comparison, Method
from pipeline.job.adapters import own_judges
from pipeline.job.checks import HUB_ID
from pipeline.job.errors import Problem, did_you_mean
from pipeline.job.model import Job
from pipeline.store.files import exists
from pipeline.store.places import is_url, joined


def method_problems(field: str, method: Method, comparison: Comparison) -> Iterator[Problem]:
    """What is wrong with a method by itself; one that is not scored may lack a decoder."""
    given = method.decoder.model_fields_set
    if "name" not in given and method.not_scored is None:
        yield Problem(f"{field}.decoder.name", f"nothing given; {did_you_mean('', TABLE)}")
        return
    yield from _curve_problems(field, method, comparison.job)
    yield from _attribute_problems(field, method, comparison.job)
    if method.models:
        yield from _model_problems(field, method, comparison)
    if method.accept is not None and method.decoder.name == SINGLE:
        who = "one model a persona" if method.models else "each attribute alone"
        text = f"{who} is told of no mixture, and its texts would be chosen by another rule than all others'; remove it"
        yield Problem(f"{field}.accept", text)


def _curve_problems(field: str, method: Method, base: Job) -> Iterator[Problem]:
    name, given = method.decoder.name, method.decoder.model_fields_set
    aggregate = (method if "aggregate" in given else base).decoder.aggregate
    product = TABLE[name].target is None and aggregate == "product"
    for many, one in (("strengths", "strength"), ("horizons", "horizon")):
        values = getattr(method, many)
        if not values:
            continue
        if one not in method.reads or (one == "horizon" and product):
            composed = product and one == "horizon"
            what, or_say = (f"{name!r} of the product", ", or say aggregate: sum") if composed else (repr(name), "")
            yield Problem(f"{field}.{many}", f"{show(list(values))}: decoder {what} has no {one}; remove them{or_say}")
        if one in given:
            yield Problem(f"{field}.decoder.{one}", f"{show(getattr(method.decoder, one))}, and {many} beside it; "
                          "remove one")  # fmt: skip
        if len(set(values)) < len(values):
            yield Problem(f"{field}.{many}", f"{show(list(values))} has one twice; remove it")


def _attribute_problems(field: str, method: Method, base: Job) -> Iterator[Problem]:
    names = [each.name for each in method.attributes]
    for index, name in enumerate(names):
        at = f"{field}.attributes[{index}].name"
        if name not in base.attribute_names:
            yield Problem(at, f"{name!r} is none of the job's; {did_you_mean(name, base.attribute_names)}")
        elif name in names[:index]:
            yield Problem(at, f"{name!r} is attributes[{names.index(name)}] already; remove one")
        elif name in own_judges(base):
            text = f"{name!r}: the job's adapter brings a judge, and texts of another would be judged by another"
            yield Problem(at, f"{text}; move its judge away, or compare them in two files")


def _model_problems(field: str, method: Method, comparison: Comparison) -> Iterator[Problem]:
    if method.decoder.name != SINGLE:
        text = f"{method.decoder.name!r}: a persona's one model writes alone; remove decoder.name, or models"
        yield Problem(f"{field}.decoder.name", text)
    if method.attributes:
        yield Problem(f"{field}.attributes", f"{show([each.name for each in method.attributes])} have no place beside "
                      "models; remove one")  # fmt: skip
    try:
        tasks = [personas_of(comparison, task) for task in comparison.tasks]
    except (PersonaError, ValueError, KeyError):  # told of where they are
        return
    known = list(dict.fromkeys(name for names in tasks for name in names))
    for name in method.models:
        if name not in known:
            yield Problem(f"{field}.models.{name}", f"no task has a persona of that name; {did_you_mean(name, known)}")
    if not any(set(names) <= set(method.models) for names in tasks):
        yield Problem(
            f"{field}.models", f"{show(list(method.models))} are not all personas of any task; add the others"
        )


def missing_adapters(comparison: Comparison) -> list[Problem]:
    """Folders of methods' own adapters that are not there, each where its author wrote it."""
    found = []
    for m, method in enumerate(comparison.methods):
        if method.not_scored is not None:
            continue
        places = [(f"attributes[{i}].adapter", each.adapter) for i, each in enumerate(method.attributes)]
        places += [(f"models.{name}", place) for name, place in method.models.items()]
        for field, place in places:
            if place is None or is_url(place) or exists(joined(comparison.folder, place)) or HUB_ID.fullmatch(place):
                continue
            remedy = "train it or bring it there, or say why with not_scored"
            where = str(comparison.folder)
            found.append(Problem(f"methods[{m}].{field}", f"{place!r} is not in {where!r}; {remedy}"))
    return found


def place_of(field: str, task: str, at: str, method: Method, base: Job) -> str:
    """Where the author of a comparison wrote a field of an arm's job.

    Args:
        task, at: where the task and the method stand.
    """
    section, bracket, rest = field.partition("[")
    if section == "attributes" and bracket:
        number, _, more = rest.partition("]")
        own = _own_attribute(int(number), method, base)
        if own is not None:
            return f"{at}.{own}{'' if own.startswith('models') else more}"
    section = field.partition(".")[0].partition("[")[0]
    if section in ("personas", "people", "prompts"):
        return f"{task}.{field}"
    if section in ("decoder", "accept") or (field == "model.system" and method.system is not None):
        return f"{at}.{field}"
    return f"job.{field}"


def _own_attribute(number: int, method: Method, base: Job) -> str | None:
    """The method's field that an attribute of an arm's job comes from; ``None``: from the base."""
    names = base.attribute_names
    if number < len(names):
        own = [each.name for each in method.attributes]
        return f"attributes[{own.index(names[number])}]" if names[number] in own else None
    return f"models.{list(method.models)[number - len(names)]}"
