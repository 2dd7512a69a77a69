"""What the launcher of the Dataflow Flex Template does with its parameters: an ``mpg run --detach``.

A launcher starts the file that ``FLEX_TEMPLATE_PYTHON_PY_FILE`` names (``workflows/dataflow/launch.py``) with a
template's parameters and what Dataflow adds, all as ``--name=value``, and then submits the job's specification, which
it wants at ``--template_location``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from personas.words import show
from personas.yaml_files import YamlError, load_yaml
from pipeline.commands.flex_template import Parameter, parameters
from pipeline.commands.shared import InputError
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job

IMAGE_VARIABLE = "MPG_IMAGE"  # the image's own name, in the container
ONE_PROCESS, PROCESSES = "no_use_multiple_sdk_containers", "use_multiple_sdk_containers"
# Options of Beam's as they are written, in their order: some may be given again. ``None``: one without a value.
_Options = list[tuple[str, str | None]]


def command_line(arguments: Sequence[str]) -> list[str]:
    """``mpg``'s own command line for what a launcher starts the template's file with.

    Args:
        arguments: ``--name=value`` of the template's parameters and of Beam's options, which ``mpg run`` looks at.

    Raises:
        InputError: a line for each problem: parameter, value, remedy.
    """
    given, beam = _read(arguments)
    known = {each.name: each for each in parameters()}
    problems = [
        f"{name}: {show(value)} has not its form ({known[name].pattern}); {known[name].help}"
        for name, value in given.items()
        if re.fullmatch(known[name].pattern, value) is None
    ]
    missing = [each for each in known.values() if each.required and each.name not in given]
    problems += [f"{each.name}: is missing; {each.help}" for each in missing]
    if not problems:
        problems += _twice(given, known)
    if problems:
        raise InputError("\n".join(problems))
    fields = [f"{known[name].path}={_yaml(known[name], value)}" for name, value in given.items() if known[name].path]
    fields += [each for each in given.get("set", "").split(";") if each]
    beam += [(option, value) for name, value in given.items() if (option := known[name].option) is not None]
    specification = _last(beam, "--template_location")
    beam = [each for each in beam if each[0] != "--template_location"]
    accelerator = given.get("accelerator")
    if accelerator is not None:
        beam.append(("--resource_hint", f"accelerator={accelerator}"))
    else:
        accelerator = _of_all_workers(beam)
    job = _job(given["job"], fields, given["output"])
    beam += _processes(beam, accelerator, job)
    if accelerator is None and job.threads is None:
        fields.append("threads=1")
    for name, value in (("--runner", "DataflowRunner"), ("--sdk_container_image", os.environ.get(IMAGE_VARIABLE))):
        if value and _last(beam, name) is None:
            beam.append((name, value))
    ours = ["run", given["job"], "--output", given["output"], "--detach"]
    ours += [] if specification is None else ["--specification", specification]
    sets = [word for field in fields for word in ("--set", field)]
    return [*ours, *sets, "--", *(name if value is None else f"{name}={value}" for name, value in beam)]


def _twice(given: Mapping[str, str], known: Mapping[str, Parameter]) -> Iterator[str]:
    """Fields that a parameter and ``set`` say differently, be it in a section that ``set`` gives as a whole."""
    ours = {each.path or each.name: each for each in known.values() if each.path or each.name == "output"}
    for entry in filter(None, given.get("set", "").split(";")):
        path, _, text = entry.partition("=")
        for field, parameter in ours.items():
            if parameter.name not in given or not f"{field}.".startswith(f"{path}."):
                continue
            value, other = given[parameter.name], _within(text, field[len(path) + 1 :])
            as_text = parameter.is_text or parameter.path is None
            if other != _plain(value) and not (as_text and f"{other}" == value) and (field, text) != (path, value):
                yield (
                    f"{parameter.name}: is {show(value)}, and set says {show(entry)}; remove one of the two, or give "
                    "the same value"
                )


def _within(text: str, path: str) -> object:
    """What a text in YAML has at a path; ``None`` where it has nothing."""
    value = _plain(text)
    for name in filter(None, path.split(".")):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _plain(text: str) -> object:
    try:
        return load_yaml(text)
    except YamlError:
        return text


def _read(arguments: Sequence[str]) -> tuple[dict[str, str], _Options]:
    """Parameters by name, without empty ones, and the other options."""
    names = {each.name for each in parameters()}
    given, beam, words = dict[str, str](), _Options(), list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise InputError(f"{show(word)}: belongs to no parameter; write --name=value")
        found = value if equals else words.pop(0) if words and not words[0].startswith("--") else None
        if name[2:] not in names:
            beam.append((name, found))
        elif found:
            given[name[2:]] = found
    return given, beam


def _of_all_workers(beam: _Options) -> str | None:
    """The GPUs that Dataflow is to give every worker by an option of its own, in the form of the parameter's."""
    given = [value or "" for name, value in beam if name.startswith("--dataflow_service_option")]
    found = re.search("(?:^|,)worker_accelerator=([^,]+)", ",".join(given))
    return found and found[1]


def _last(beam: _Options, *names: str) -> str | None:
    """The last value of an option, by whichever of its names."""
    return next((value for name, value in reversed(beam) if name in names), None)


def _yaml(parameter: Parameter, value: str) -> str:
    """A value as ``--set`` reads it: a text stays one, whatever it looks like."""
    is_null = value == "null" and parameter.pattern.startswith("null|")
    return json.dumps(value) if parameter.is_text and not is_null else value


def _job(place: str, fields: Sequence[str], output: str) -> Job:
    try:
        return load_job(place, fields, output=output)
    except JobError as error:
        raise InputError("\n".join(error.lines)) from error


def _processes(beam: _Options, accelerator: str | None, job: Job) -> _Options:
    """What says how many processes and threads a worker has, where nobody has said it.

    With GPUs: one process, whose threads take a device's turn each (:mod:`pipeline.decode.per_device`), and one more
    that reads and writes meanwhile. In containers of their own, processes may not see each other's leases.
    Without: a bank in each process, of which Dataflow starts one for each vCPU.

    Raises:
        InputError: the launcher would decide otherwise than a worker.
    """
    threads, added = "--number_of_worker_harness_threads", _Options()
    if accelerator is not None and job.model.dtype == "auto":
        raise InputError(
            "model_dtype: auto is decided by the machine that submits, and the launcher's has no GPU; give "
            "model_dtype=bfloat16 or float32, or model.dtype in the job file"
        )
    chosen = [
        each for name, value in beam if name in ("--experiment", "--experiments") for each in f"{value}".split(",")
    ]
    if accelerator is not None and PROCESSES not in chosen and ONE_PROCESS not in chosen:
        added.append(("--experiments", ONE_PROCESS))
    if _last(beam, threads) is None:
        n = re.search(r";count:(\d+)", accelerator or "")
        added.append((threads, str(int(n[1]) + 1 if n else 1)))
    return added
