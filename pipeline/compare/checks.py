"""What a well-formed comparison file may still have wrong, and which of its files are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mpg.settings import TABLE
from personas.files import PersonaError
from personas.words import show
from pipeline.compare.arms import Curve, Point, job_of, points_of, weighed
from pipeline.compare.model import ALL_TASKS, SINGLE, Comparison, Method, Task
from pipeline.compare.people import NOBODY
from pipeline.job.checks import problems_in as problems_in_job
from pipeline.job.errors import Problem, did_you_mean
from pipeline.job.fields import FilePersonas
from pipeline.store.files import exists
from pipeline.store.places import is_url, joined

# Fields of a job that say when or with which texts a run ends: methods that end differently are not compared.
_NOT_HERE = ("accept", "deadline", "budget", "split")


def problems_in(comparison: Comparison) -> Iterator[Problem]:
    """All that is wrong between the fields, and in the jobs that they come to."""
    found = [
        *_taken("tasks", [task.name for task in comparison.tasks]),
        *_taken("methods", [method.name for method in comparison.methods]),
        *_base_problems(comparison),
        *_final_problems(comparison),
    ]
    for index, task in enumerate(comparison.tasks):
        found += _task_problems(f"tasks[{index}]", task)
    for index, method in enumerate(comparison.methods):
        found += _method_problems(f"methods[{index}]", method)
    found = found or list(_folder_problems(comparison))
    yield from found or _problems_of_jobs(comparison)


def missing(comparison: Comparison) -> list[str]:
    """Files of prompts and personas that are not there, a line each; the comparison can't be run without them."""
    return [
        f"tasks[{index}].{what}" for index, task in enumerate(comparison.tasks) for what in _missing(comparison, task)
    ]


def _missing(comparison: Comparison, task: Task) -> Iterator[str]:
    named = [("prompts.file", task.prompts.file)]
    if isinstance(task.personas, FilePersonas):
        named.append(("personas.file", task.personas.file))
    if task.people is not None:
        named.append(("people.file", task.people.file))
    for field, place in named:
        if place is not None and not is_url(place) and not exists(joined(comparison.folder, place)):
            yield f"{field}: {place!r} is not in {str(comparison.folder)!r}; bring it there"


def _taken(field: str, names: Sequence[str]) -> Iterator[Problem]:
    # By folders, of which some file systems tell upper and lower case apart and others do not.
    lower = [name.lower() for name in names]
    for index, name in enumerate(lower):
        if name in lower[:index]:
            yield Problem(f"{field}[{index}].name", f"{names[index]!r} is taken by {field}[{lower.index(name)}]; "
                          "give another")  # fmt: skip


def _base_problems(comparison: Comparison) -> Iterator[Problem]:
    for name in _NOT_HERE:
        if getattr(comparison.job, name) is not None:
            yield Problem(
                f"job.{name}", f"{show(getattr(comparison.job, name))} has no place in a comparison; remove it"
            )
    kinds = {judge.kind for judge in comparison.job.judges}
    if len(kinds) < 2:
        had = ", ".join(sorted(kinds)) or "none"
        remedy = "one family can't be checked by another; add e.g. {kind: encoder}, or {kind: openai, ...}"
        yield Problem("job.judges", f"{had}: {remedy}")


def _final_problems(comparison: Comparison) -> Iterator[Problem]:
    final, names = comparison.final, [method.name for method in comparison.methods]
    baselines = [method.name for method in comparison.methods if method.baseline]
    if final.perplexity_of is not None and final.perplexity_of not in names:
        hint = did_you_mean(final.perplexity_of, names)
        yield Problem("final.perplexity_of", f"{final.perplexity_of!r} is none of the methods; {hint}")
    if final.finalists and not baselines:
        text = "none is a baseline to compare finalists with; set baseline: true, or final.finalists: 0"
        yield Problem("methods", text)
    others = len(names) - len(baselines)
    if final.finalists > others:
        yield Problem("final.finalists", f"{final.finalists} is more than the {others} that are no baselines; lower it")


def _task_problems(field: str, task: Task) -> Iterator[Problem]:
    if task.name.lower() == ALL_TASKS:
        yield Problem(f"{field}.name", f"{task.name!r} is what tables call all tasks together; give another")
    if task.personas.control:
        yield Problem(
            f"{field}.personas.control", "true: the control is a method, {decoder: {name: reference}}; remove it"
        )
    if task.personas.strengths:
        text = f"{show(list(task.personas.strengths))} belong to methods; remove them"
        yield Problem(f"{field}.personas.strengths", text)


def _method_problems(field: str, method: Method) -> Iterator[Problem]:
    given = method.decoder.model_fields_set
    if "name" not in given:
        yield Problem(f"{field}.decoder.name", f"nothing given; {did_you_mean('', TABLE)}")
        return
    name = method.decoder.name
    product = TABLE[name].target is None and method.decoder.aggregate == "product"
    for many, one in (("strengths", "strength"), ("horizons", "horizon")):
        values = getattr(method, many)
        if not values:
            continue
        if one not in method.reads or (one == "horizon" and product):
            what = f"{name!r} of the product" if product and one == "horizon" else repr(name)
            yield Problem(f"{field}.{many}", f"{show(list(values))}: decoder {what} has no {one}; remove them")
        if one in given:
            yield Problem(f"{field}.decoder.{one}", f"{show(getattr(method.decoder, one))}, and {many} beside it; "
                          "remove one")  # fmt: skip
        if len(set(values)) < len(values):
            yield Problem(f"{field}.{many}", f"{show(list(values))} has one twice; remove it")


def _folder_problems(comparison: Comparison) -> Iterator[Problem]:
    """Methods whose names make one folder of two arms: ``sum`` at horizon 8, and ``sum-h8``."""
    taken: dict[str, int] = {}
    for m, method in enumerate(comparison.methods):
        for point in points_of(method, comparison.job.attribute_names):
            other = taken.setdefault(point.folder.lower(), m)
            if other != m:
                text = f"{method.name!r}: {point.folder} is a folder of methods[{other}], too; give another"
                yield Problem(f"methods[{m}].name", text)
                break


def _problems_of_jobs(comparison: Comparison) -> Iterator[Problem]:
    """What is wrong with the jobs, each told once, where its author wrote it."""
    said = set[Problem]()
    for t, task in enumerate(comparison.tasks):
        absent = {line.partition(":")[0] for line in _missing(comparison, task)}
        wrong = list(_persona_problems(comparison, task))
        yield from (Problem(f"tasks[{t}].{each.field}", each.text) for each in wrong if each.field not in absent)
        if wrong:
            continue
        for m, method in enumerate(comparison.methods):
            try:
                job = job_of(comparison, task, _a_point(comparison, task, method))
            except PersonaError as error:
                found = [Problem("people.file" if task.people else "personas.file", str(error))]
            else:
                found = list(problems_in_job(job))
            for each in found:
                if each.field in absent:
                    continue
                line = Problem(f"{_room(each.field, t, m, method)}.{each.field}", each.text)
                if line not in said:
                    said.add(line)
                    yield line


def _persona_problems(comparison: Comparison, task: Task) -> Iterator[Problem]:
    """What is wrong with a task's personas, whoever writes as them; nobody can then."""
    of_people = {f"personas.{name}" for name in NOBODY} if task.people is not None else set[str]()
    for each in problems_in_job(job_of(comparison, task.model_copy(update={"people": None}))):
        if each.field.startswith("personas.") and each.field not in of_people:
            yield each


def _room(field: str, t: int, m: int, method: Method) -> str:
    """Where the author of a comparison wrote a job's field."""
    section = field.partition(".")[0].partition("[")[0]
    if section in ("personas", "people", "prompts"):
        return f"tasks[{t}]"
    if section == "decoder" or (field == "model.system" and method.system is not None):
        return f"methods[{m}]"
    return "job"


def _a_point(comparison: Comparison, task: Task, method: Method) -> Point:
    """Any of a method: what may be wrong with a job is wrong with all of them."""
    if method.decoder.name != SINGLE:
        return Point(Curve(method.name))
    return next(points_of(method, weighed(job_of(comparison, task))))
