"""The parameters of the Dataflow Flex Template, with their checks, of the job's schema and Beam's own options.

``python -m tools.flex_metadata`` writes them down for Dataflow's service and its console; what a launcher makes of
them: :mod:`pipeline.commands.flex_launch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.job.model import job_schema

# Of the job's schema: its own fields and those of these sections, where they hold one value. The rest is `set`.
SECTIONS = ("model", "prompts", "decoder")
# Beam's options that are parameters: what gcloud has no flag of its own for, and the three that it has, for others.
OPTIONS = (
    "sdk_container_image",
    "num_workers",
    "max_num_workers",
    "machine_type",
    "autoscaling_algorithm",
    "disk_size_gb",
    "disk_type",
    "number_of_worker_harness_threads",
)
_BUCKET = "gs://[a-z0-9][-_.a-z0-9]+[a-z0-9]"  # the names that Beam's own check of a bucket takes
_COUNT, _ABOVE_0 = "[0-9]+", "[1-9][0-9]*"
_NUMBER, _SHARE = (
    "([0-9]+[.]?[0-9]*|[.][0-9]+)(e-?[0-9]+)?",
    "(0?[.][0-9]+|0([.]0*)?|1([.]0*)?|[1-9][.]?[0-9]*e-[0-9]+)",
)
_TIME = "[0-9]{4}-?(W[0-9]{2}|[0-9]{2}-?[0-9]{2}).*"  # ISO 8601: a date or a week, and perhaps a time of day
# What the schema says in words, or nowhere.
_PATTERNS = {
    "interval": _TIME,
    "deadline": "([0-9]+([.][0-9]+)?[smhd])+|" + _TIME,
    "output": f"{_BUCKET}/.+",
    "disk_size_gb": _COUNT,
    "machine_type": "[a-z][a-z0-9]*(-[a-z0-9]+)+",
    "sdk_container_image": "[a-z0-9.:-]+(/[a-z0-9._-]+)+(:[A-Za-z0-9_.-]+)?(@sha256:[0-9a-f]{64})?",
}
_KINDS = {
    "job": "GCS_READ_FILE",
    "output": "GCS_WRITE_FOLDER",
    "machine_type": "MACHINE_TYPE",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of the template.

    Attributes:
        path: of the job's field that it sets (``decoder.top_p``); option: of Beam's that it gives. One or neither.
        pattern: POSIX egrep, which the whole value has to match; Dataflow's service looks before it starts anything.
        kind: Dataflow's ``paramType``. choices: of an ``ENUM``. is_text: whether the field is a text, not YAML.
    """

    name: str
    label: str
    help: str
    pattern: str
    group: str
    kind: str = "TEXT"
    path: str | None = None
    option: str | None = None
    choices: tuple[str, ...] = ()
    required: bool = False
    is_text: bool = False

    def metadata(self) -> dict[str, Any]:
        """As Dataflow's ``ParameterMetadata``."""
        found: dict[str, Any] = {
            "name": self.name,
            "label": self.label,
            "helpText": self.help,
            "isOptional": not self.required,
            "regexes": [f"^({self.pattern})$"],
            "paramType": self.kind,
            "groupName": self.group,
        }
        if self.choices:
            found["enumOptions"] = [{"value": each, "label": each} for each in self.choices]
        return found


def metadata() -> dict[str, Any]:
    """What ``gcloud dataflow flex-template build --metadata-file`` takes."""
    return {
        "name": "MPG-SCR: a personalised corpus",
        "description": "Decodes a job's grid of prompts and personas on GPUs and judges the texts by embedded judges; "
        "mpg finish makes the data set of what it has written.",
        "streaming": False,
        "parameters": [each.metadata() for each in parameters()],
    }


def parameters() -> tuple[Parameter, ...]:
    """All of them, in the console's order; those without a default first."""
    return (*_own(), *_of_schema(), *_of_beam())


def _own() -> Iterator[Parameter]:
    yield Parameter(
        "job",
        "Job file",
        "The job file (YAML) in a bucket; relative places in it are of its folder there. Models and adapters of the "
        "image have absolute ones, as /opt/mpg/weights/NAME.",
        f"{_BUCKET}/.+[.](ya?ml|json)",
        "Job",
        _KINDS["job"],
        required=True,
    )
    yield Parameter(
        "output",
        "Output",
        "Folder of the data set, in a bucket that the workers may write.",
        _PATTERNS["output"],
        "Job",
        _KINDS["output"],
        required=True,
    )
    yield Parameter(
        "set",
        "Other fields",
        "Overrides of any field, FIELD=VALUE;FIELD=VALUE, values as in YAML, without a semicolon in them, e.g. "
        "personas.steps=3;judges=[].",
        "[a-z_]+([.][A-Za-z0-9_-]+)*=[^;]*(;[a-z_]+([.][A-Za-z0-9_-]+)*=[^;]*)*;?",
        "Job",
    )
    yield Parameter(
        "accelerator",
        "GPUs of a worker",
        "As Beam's resource hint has them, e.g. type:nvidia-l4;count:1;install-nvidia-driver:5xx. They are the decode "
        "step's alone. Left out: the processor.",
        "type:[a-z0-9-]+;count:[1-9][0-9]*(;install-nvidia-driver(:[a-z0-9.]+)?)?",
        "Workers",
    )


def _of_schema() -> Iterator[Parameter]:
    schema = job_schema()
    for name, field in schema["properties"].items():
        if name in SECTIONS:
            section = schema["$defs"][field["$ref"].rpartition("/")[2]]
            for inner, each in section["properties"].items():
                yield from _of_field(f"{name}.{inner}", each, name.capitalize())
        elif name != "output":
            yield from _of_field(name, field, "Job")


def _of_field(path: str, field: Mapping[str, Any], group: str) -> Iterator[Parameter]:
    """The parameter of a field that holds one value (or null); nothing for one that holds more."""
    variants = list(field.get("anyOf", [field]))
    values = [each for each in variants if each.get("type") != "null"]
    if len(values) != 1 or values[0].get("type") not in ("string", "integer", "number", "boolean"):
        return
    value, name = dict(field) | dict(values[0]), path.replace(".", "_")
    pattern, kind, choices = _PATTERNS.get(path), "TEXT", tuple(map(str, value.get("enum", ())))
    if choices:
        pattern, kind = "|".join(each.replace(".", "[.]") for each in choices), "ENUM"
    elif value["type"] == "boolean":
        pattern, kind = "true|false", "BOOLEAN"
    elif value["type"] == "integer":
        pattern, kind = (_ABOVE_0 if value.get("minimum", 0) >= 1 else _COUNT), "NUMBER"
    elif value["type"] == "number":
        pattern, kind = (_SHARE if value.get("maximum") == 1 else _NUMBER), "NUMBER"
    elif pattern is None:
        pattern = value.get("pattern", "^.+$").removeprefix("^").removesuffix("$").replace(r"\d", "[0-9]")
    nullable = len(values) < len(variants)
    if nullable:
        pattern, kind = f"null|{pattern}", "TEXT" if kind in ("NUMBER", "BOOLEAN") else kind
        choices = ("null", *choices) if choices else ()
    yield Parameter(
        name,
        path,
        f"{field['description']}{_range(value)} Left out: as the job file has it.",
        pattern,
        group,
        kind,
        path=path,
        choices=choices,
        is_text=value["type"] == "string",
    )


def _range(value: Mapping[str, Any]) -> str:
    """The bounds of a number, in words."""
    least, above, most = (value.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    words = [f"at least {least}"] if least is not None else [f"above {above}"] if above is not None else []
    words += [f"at most {most}"] if most is not None else []
    return f" ({', '.join(words)})" if words else ""


def _of_beam() -> Iterator[Parameter]:
    from pipeline.beam.arguments import options_of_beam

    known = options_of_beam()
    for name in OPTIONS:
        action = known[f"--{name}"]
        choices = tuple(action.choices or ())
        pattern = _PATTERNS.get(name) or ("|".join(choices) if choices else _ABOVE_0 if action.type is int else ".+")
        kind = "ENUM" if choices else "NUMBER" if action.type is int else _KINDS.get(name, "TEXT")
        words = " ".join(str(action.help).split())
        yield Parameter(name, name.replace("_", " ").capitalize(), f"{words}{_OWN_DEFAULT.get(name, '')}", pattern,
                        "Workers", kind, option=f"--{name}", choices=choices)  # fmt: skip


_OWN_DEFAULT = {
    "sdk_container_image": " Left out: the image of the launcher itself.",
    "number_of_worker_harness_threads": " Left out: one more than a worker has GPUs, in one process; on workers "
    "without, one in each of as many processes as they have vCPUs.",
}
