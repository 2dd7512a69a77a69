"""The job file: one frozen model of it, checked before anything heavy is imported.

``load_job`` is the way in. It reports all that can be known without a model: unknown fields, wrong
types and ranges, attributes without an adapter, weights that do not fit, prompts that can't be
read. All paths are relative to the job file's folder, ``output`` too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.job.checks import problems_in
from pipeline.job.errors import JobError, Problem, problems_of, with_origin
from pipeline.job.interval import PLACE, fields_with_it, filled, interval_of
from pipeline.job.model import Job, shipped_adapters
from pipeline.job.read import apply_overrides, read_yaml, unstorable
from pipeline.job.recorded import missing_places, record_of
from pipeline.store.copies import here
from pipeline.store.places import expanded, is_local, is_url


def load_job(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    shipped: Mapping[str, Path] | None = None,
) -> Job:
    """Read a job file, apply ``a.b=c`` overrides, and check all that can be checked without a model.

    Args:
        path: the YAML file, or the ``job.json`` of a data set, which then is written to again.
        overrides: what stands after each ``--set``; values are YAML.
        output: folder of the data set, relative to the current directory; the job's own if None.
        shipped: the adapters to know by name, `shipped_adapters()` if None.

    Raises:
        JobError: with one line for each problem: file, field, value, remedy.
    """
    file = str(path)
    try:
        path = expanded(path)
    except ValueError as error:
        raise JobError(file, [Problem("job file", str(error).partition(": ")[2])]) from error
    record = record_of(path)  # first: it may finish an exchange of the file
    data = read_yaml(_copy(path, file))
    if record is not None:
        data["output"] = str(record.output)
    set_paths = apply_overrides(data, overrides, file)
    unreadable = list(unstorable(data))
    if unreadable:
        raise JobError(file, [with_origin(problem, set_paths) for problem in unreadable])
    if output is not None:
        data["output"] = str(output) if is_url(str(output)) else str(expanded(output).absolute())
    unplaced = list(_put_interval(data, is_record=record is not None, output=output))
    if unplaced:
        raise JobError(file, [with_origin(problem, set_paths) for problem in unplaced])
    folder = path.absolute().parent if record is None else record.folder
    context = {"folder": folder, "shipped": dict(shipped_adapters() if shipped is None else shipped)}
    problems: list[Problem] = []
    job: Job | None = None
    try:
        job = Job.model_validate(data, context=context)
    except ValidationError as error:
        problems = problems_of(error, data, Job.model_json_schema())
    if job is not None:
        missing = None if record is None else missing_places(job, record)
        problems = list(problems_in(job)) if missing is None else [missing]
        if record is None and not problems and job.output_folder == folder:
            problems.append(Problem("output", f"{job.output!r} is the job file's own folder; name another, e.g. out"))
        if not problems:
            return job
    raise JobError(file, [with_origin(problem, set_paths) for problem in problems])


def _put_interval(data: dict[str, Any], *, is_record: bool, output: str | Path | None) -> Iterator[Problem]:
    """Put the job's interval where it stands in the job's places; a line for each that can't be right.

    Args:
        is_record: of a data set, which goes on in its own folder. output: that was given apart, for this run alone.
    """
    given = data.get("interval")
    if given is None:
        for field, holder, name in fields_with_it(data):
            remedy = "give one: --interval 2026-11-23, or the field interval"
            yield Problem(field, f"{holder[name]!r} names the job's interval, and it has none; {remedy}")
        return
    try:
        interval = interval_of(given) if isinstance(given, str) else None
    except ValueError:
        interval = None
    if interval is None:  # the job's own check has a line for it
        return
    place = data.get("output")
    if isinstance(place, str) and PLACE not in place and not is_record and output is None:
        remedy = f"add it, e.g. {place.rstrip('/')}/{PLACE}"
        yield Problem("output", f"{place!r} lacks {PLACE}: texts of all intervals would be in one folder; {remedy}")
    for _, holder, name in fields_with_it(data):
        holder[name] = filled(holder[name], interval)


def _copy(path: Path, file: str) -> Path:
    """The job file on this machine. Raises JobError: it is in a store, and can't be had from there."""
    try:
        return path if is_local(path) else here(path)
    except OSError as error:
        raise JobError(
            file, [Problem("job file", f"can't be fetched ({error.strerror or error}); check the URL")]
        ) from error
