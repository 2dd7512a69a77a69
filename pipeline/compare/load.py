"""From a comparison file to its model, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline.compare.checks import problems_in
from pipeline.compare.model import Comparison
from pipeline.job.errors import JobError, problems_of, with_origin
from pipeline.job.model import shipped_adapters
from pipeline.job.read import apply_overrides, read_yaml, unstorable
from pipeline.store.places import expanded, is_url


def load_comparison(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    shipped: Mapping[str, Path] | None = None,
) -> Comparison:
    """Read a comparison file, apply ``a.b=c`` overrides, and check all that can be checked without a model.

    Files of prompts or personas that are missing are no problem here, see :func:`pipeline.compare.checks.missing`.

    Args:
        overrides: what stands after each ``--set``. output: as :func:`pipeline.job.load.load_job`, likewise shipped.

    Raises:
        JobError: with one line for each problem: file, field, value, remedy.
    """
    file, path = str(path), expanded(path)
    data = read_yaml(path)
    here = base = path.absolute().parent
    if isinstance(data.get("job"), str):
        at = here / expanded(data["job"])
        data["job"], base = read_yaml(at), at.absolute().parent
    set_paths = apply_overrides(data, overrides, file)
    if output is not None:
        data["output"] = str(output) if is_url(str(output)) else str(expanded(output).absolute())
    problems = list(unstorable(data))
    if not problems:
        context = {"here": here, "folder": base, "shipped": dict(shipped_adapters() if shipped is None else shipped)}
        try:
            comparison = Comparison.model_validate(data, context=context)
        except ValidationError as error:
            problems = problems_of(error, data, Comparison.model_json_schema())
        else:
            problems = list(problems_in(comparison))
            if not problems:
                return comparison
    raise JobError(file, [with_origin(each, set_paths) for each in problems])
