"""What a well-formed comparison file may still have wrong, and which of its files are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.items import is_independent
from evaluation.questionnaires.answers import wanted_of
from evaluation.questionnaires.questions import OWN, QuestionnaireError
from personas.files import PersonaError
from personas.words import show
from pipeline.compare.arms import Curve, Point, job_of, personas_of, points_of, weighed
from pipeline.compare.methods import method_problems, missing_adapters, place_of
from pipeline.compare.model import ALL_TASKS, FINAL, SCREENING, Comparison, Method, Task
from pipeline.compare.people import NOBODY
from pipeline.compare.questions import items
from pipeline.job.adapters import own_judges
from pipeline.job.checks import problems_in as problems_in_job
from pipeline.job.errors import Problem, did_you_mean
from pipeline.job.known import counted
from pipeline.job.persona_fields import FilePersonas
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
        found += method_problems(f"methods[{index}]", method, comparison)
    found = found or list(_folder_problems(comparison))
    found = found or list(_problems_of_jobs(comparison))
    yield from found or _choice_problems(comparison)


def missing(comparison: Comparison) -> list[str]:
    """Files and adapters that are not there, a line each; the comparison can't be run without them."""
    found = [
        f"tasks[{index}].{what}" for index, task in enumerate(comparison.tasks) for what in _missing(comparison, task)
    ]
    return [*found, *(f"{each.field}: {each.text}" for each in missing_adapters(comparison))]


def _missing(comparison: Comparison, task: Task) -> Iterator[str]:
    named = [("prompts.file", task.prompts.file)]
    if isinstance(task.personas, FilePersonas):
        named.append(("personas.file", task.personas.file))
    if task.people is not None:
        named.append(("people.file", task.people.file))
    named += [(f"questionnaires[{i}]", each) for i, each in enumerate(task.questionnaires) if each != OWN]
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


def _choice_problems(comparison: Comparison) -> Iterator[Problem]:
    """Of methods of which each leaves a judge that counts: whether all together do."""
    base, chosen = comparison.job, comparison.choosing
    kinds = {judge.kind for judge in base.judges if is_independent(judge.kind)}
    left, own = [judge for judge in base.judges if judge.kind not in chosen], own_judges(base)
    by_all, by_others = (set(counted(judges, base.attribute_names, own)) for judges in (base.judges, left))
    who = ", ".join(each.name for each in comparison.scored if each.accept is not None)
    if chosen and not chosen >= kinds:
        readable = [t for t in comparison.tasks if not any(x.startswith("personas.") for x in _missing(comparison, t))]
        for task in readable:
            lost = [name for name in weighed(job_of(comparison, task)) if name in by_all - by_others]
            if lost:
                text = f"with {', '.join(sorted(chosen))}, who chooses texts of {who}, none that counts is left who "
                yield Problem("job.judges", f"{text}knows {', '.join(lost)} of task {task.name!r}; add one")
    if chosen >= kinds:
        text = f"{', '.join(sorted(kinds))}: each chooses texts of one of {who}, and none is left that counts"
        yield Problem("job.judges", f"{text}; have one choose for all of them, or add a judge")


def _final_problems(comparison: Comparison) -> Iterator[Problem]:
    final, names = comparison.final, [method.name for method in comparison.scored]
    baselines = [method.name for method in comparison.scored if method.baseline]
    if final.perplexity_of is not None and final.perplexity_of not in names:
        hint = did_you_mean(final.perplexity_of, names)
        yield Problem("final.perplexity_of", f"{final.perplexity_of!r} is none of the methods that are scored; {hint}")
    if final.finalists and not baselines:
        text = "none is a baseline to compare finalists with; set baseline: true, or final.finalists: 0"
        yield Problem("methods", text)
    for stage in (SCREENING, FINAL) if final.finalists else (SCREENING,):
        if not comparison.tasks_of(stage):
            yield Problem("tasks", f"none is in the {stage}; give one of them stage: both, or {stage}")
    if not comparison.scored:
        yield Problem("methods", "none of them is scored; leave not_scored out of one that writes")
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
    stems = [Path(source).stem for source in task.questionnaires]
    for index, stem in enumerate(stems):
        if stem in stems[:index]:
            text = f"{task.questionnaires[index]!r}: {stem} names another of them, too; rename the file"
            yield Problem(f"{field}.questionnaires[{index}]", text)


def _folder_problems(comparison: Comparison) -> Iterator[Problem]:
    """Methods whose names make one folder of two arms: ``sum`` at horizon 8, and ``sum-h8``."""
    taken: dict[str, int] = {}
    for m, method in enumerate(comparison.methods):
        for point in points_of(method, comparison.job.attribute_names, ()):
            other = taken.setdefault(point.folder.lower(), m)
            if other != m:
                text = f"{method.name!r}: {point.folder} is a folder of methods[{other}], too; give another"
                yield Problem(f"methods[{m}].name", text)
                break


def _problems_of_jobs(comparison: Comparison) -> Iterator[Problem]:
    """What is wrong with the jobs, each told once, where its author wrote it."""
    said = set[Problem]()
    gone = {each.field for each in missing_adapters(comparison)}
    for t, task in enumerate(comparison.tasks):
        absent = {line.partition(":")[0] for line in _missing(comparison, task)}
        wrong = list(_persona_problems(comparison, task))
        yield from (Problem(f"tasks[{t}].{each.field}", each.text) for each in wrong if each.field not in absent)
        if wrong:
            continue
        wrong = list(_questionnaire_problems(comparison, task))
        yield from (Problem(f"tasks[{t}].{each.field}", each.text) for each in wrong if each.field not in absent)
        for m, method in enumerate(comparison.methods):
            try:
                point = _a_point(comparison, task, method)
                job = None if point is None else job_of(comparison, task, point)
            except PersonaError as error:
                found = [Problem("people.file" if task.people else "personas.file", str(error))]
            else:
                found = [] if job is None else list(problems_in_job(job))
            for each in found:
                place = place_of(each.field, f"tasks[{t}]", f"methods[{m}]", method, comparison.job)
                line = Problem(place, each.text)
                if each.field not in absent and place not in gone and line not in said:
                    said.add(line)
                    yield line


def _questionnaire_problems(comparison: Comparison, task: Task) -> Iterator[Problem]:
    """Files of items that can't be read, and personas of whom none wants a pole."""
    if task.questionnaires and not any(wanted_of(each) for each in job_of(comparison, task).build_personas()):
        yield Problem(
            "questionnaires", f"{show(list(task.questionnaires))}: none of its personas weighs a pole; remove them"
        )
    for i, source in enumerate(task.questionnaires):
        try:
            items(comparison, source)
        except (QuestionnaireError, OSError) as error:
            yield Problem(f"questionnaires[{i}]", str(error))


def _persona_problems(comparison: Comparison, task: Task) -> Iterator[Problem]:
    """What is wrong with a task's personas, whoever writes as them; nobody can then."""
    of_people = {f"personas.{name}" for name in NOBODY} if task.people is not None else set[str]()
    for each in problems_in_job(job_of(comparison, task.model_copy(update={"people": None}))):
        if each.field.startswith("personas.") and each.field not in of_people:
            yield each


def _a_point(comparison: Comparison, task: Task, method: Method) -> Point | None:
    """Any of a method: what is wrong with one job is so with all. ``None``: the method does not write this task."""
    names = weighed(job_of(comparison, task)) if method.one_attribute else ()
    point = next(points_of(method, names, personas_of(comparison, task)), None)
    return point if point is None or method.one_attribute else Point(Curve(method.name))
