"""The job file: one frozen model of it, checked before anything heavy is imported.

``load_job`` is the way in. It reports all that can be known without a model: unknown fields, wrong
types and ranges, attributes without an adapter, weights that do not fit, prompts that can't be
read. Paths to prompts, adapters and models are relative to the job file's folder; ``output`` is
relative to the current directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline.job.checks import problems_in
from pipeline.job.errors import JobError, Problem, problems_of
from pipeline.job.model import Job, shipped_adapters
from pipeline.job.read import apply_overrides, read_yaml, unstorable


def load_job(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    shipped: Mapping[str, Path] | None = None,
    folder: Path | None = None,
) -> Job:
    """Read a job file, apply ``a.b=c`` overrides, and check all that can be checked without a model.

    Args:
        path: the YAML file.
        overrides: what stands after each ``--set``; values are YAML.
        shipped: the adapters to know by name, `shipped_adapters()` if None.
        folder: that paths are relative to; the file's own if None.

    Raises:
        JobError: with one line for each problem: file, field, value, remedy.
    """
    file = str(path)
    data = read_yaml(path)
    set_paths = apply_overrides(data, overrides, file)
    folder = Path(path).absolute().parent if folder is None else folder
    unreadable = list(unstorable(data))
    if unreadable:
        raise JobError(file, [_with_origin(problem, set_paths) for problem in unreadable])
    context = {"folder": folder, "shipped": dict(shipped_adapters() if shipped is None else shipped)}
    problems: list[Problem] = []
    job: Job | None = None
    try:
        job = Job.model_validate(data, context=context)
    except ValidationError as error:
        problems = problems_of(error, data, Job.model_json_schema())
    if job is not None:
        problems = list(problems_in(job))
        if not problems:
            return job
    raise JobError(file, [_with_origin(problem, set_paths) for problem in problems])


def _with_origin(problem: Problem, set_paths: Sequence[str]) -> Problem:
    """The problem, with a word on --set where the field came from there and not from the file."""
    from_set = any(problem.field == path or problem.field.startswith((f"{path}.", f"{path}[")) for path in set_paths)
    return Problem(problem.field, f"{problem.text} (from --set)") if from_set else problem
