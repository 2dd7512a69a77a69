"""``mpg init``: a small job of one's own, every line with a word on it; asks for nothing."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mpg.models.hub import Place, PlaceError
from personas import KNOWN
from pipeline.commands.arguments import place, source
from pipeline.commands.shared import InputError, Outcome, adapters_by_name
from pipeline.job.errors import JobError
from pipeline.job.load import load_job

JOB, PROMPTS = "job.yaml", "prompts.jsonl"
OWN_LICENSE = "apache-2.0"  # of the questions below, as of this project
_SHIPPED = ("E", "N", "T", "J")
_MODEL = "embedded/smollm2-135m-instruct"
_QUESTIONS = (
    "How do you spend a free Saturday?",
    "What do you do when a plan falls through at the last minute?",
    "A friend asks you for honest advice about a new job. What do you say?",
    "How do you get ready for a long trip?",
    "What makes an evening with friends a good one?",
    "You have a week to learn something new. What, and how?",
)
_COMMENT_AT = 44  # column

Line = tuple[str, str]  # YAML, and what is said of it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folder", nargs="?", metavar="DIR", type=place, default=Path(),
                        help="folder to write it into, made if need be (.)")  # fmt: skip
    parser.add_argument("--prompts", metavar="FILE", type=place,
                        help="your prompts, which stay where they are; left out: a few to begin with")  # fmt: skip
    parser.add_argument("--adapter", metavar="NAME=FOLDER", action="append", default=[],
                        help=f"an attribute with its adapter, see mpg train (may be repeated); left out: the shipped "
                        f"{', '.join(_SHIPPED)}")  # fmt: skip
    parser.add_argument("--model", metavar="ID", type=source,
                        help="embedded id, Hub id or folder; left out: what the adapters were trained on")  # fmt: skip
    parser.add_argument("--judge-url", metavar="URL", help="have a model behind this endpoint judge, too")
    parser.add_argument("--judge-model", metavar="NAME", help="of that model, as the endpoint names it")


def init(options: argparse.Namespace) -> Outcome:
    """Write the job file, and prompts where none are given. Raises InputError: nothing is written then."""
    folder: Path = options.folder
    files = {folder / JOB: "", **({folder / PROMPTS: ""} if options.prompts is None else {})}
    for path in files:
        if path.exists() or path.is_symlink():
            raise InputError(f"{path}: is there already; name another folder, or remove it")
    try:
        adapters = adapters_by_name(options.adapter or _SHIPPED, "--adapter")
    except ValueError as error:
        raise InputError(str(error)) from error
    files[folder / JOB] = _written(_lines(options, adapters))
    if options.prompts is None:
        files[folder / PROMPTS] = "".join(json.dumps({"prompt": text}) + "\n" for text in _QUESTIONS)
    _write(folder, files)
    job = shlex.quote(str(folder / JOB))
    said = [f"written: {', '.join(map(str, files))}; next:"]
    if options.judge_url or options.judge_model:
        said.append("  export OPENAI_API_KEY=...     # the judge's key; any text for a server that asks for none")
    said += [f"  mpg check {job}", f"  mpg run {job}"]
    return Outcome("\n".join(said))


def _write(folder: Path, files: Mapping[Path, str]) -> None:
    """Write all files and check the job, or leave nothing behind."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        load_job(folder / JOB)
    except (OSError, JobError) as error:
        for path in files:
            path.unlink(missing_ok=True)
        for each in made:
            if each.is_dir():
                each.rmdir()
        if isinstance(error, JobError):
            raise InputError("\n".join(error.lines)) from error
        raise InputError(f"{folder}: can't be written ({error.strerror}); give a folder you own") from error


def _lines(options: argparse.Namespace, adapters: Mapping[str, Place]) -> list[Line]:
    folder: Path = options.folder
    own = [name for name in adapters if any(entry.startswith(f"{name}=") for entry in options.adapter)]
    cards = {name: _card(adapters[name]) for name in own}
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.absolute().resolve().name).strip("-") or "mine"
    prompts = PROMPTS if options.prompts is None else _from(folder, options.prompts)
    lines: list[Line] = [
        ("", "A job of your own. Fields that are not here: mpg schema. All paths are relative to this file."),
        (f"name: {_scalar(name)}", "of the data set"),
        ("model:", "who writes"),
        (
            f"  id: {_scalar(_model(options, cards))}",
            "embedded id, Hub id or folder: what the adapters were trained on",
        ),
        *_template(cards),
        ("attributes:", "what texts are steered towards, each by its adapter"),
    ]
    for each, where in adapters.items():
        known = KNOWN[each].description if each in KNOWN else ""
        if each not in own:
            lines.append((f"  - {_scalar(each)}", f"shipped. {known}"))
            continue
        described = str(cards[each].get("description") or known or f"Is {each}.")
        lines += [
            (f"  - name: {_scalar(each)}", "letters and digits"),
            (f"    adapter: {_scalar(_source(folder, where))}", "a folder, or a Hub id"),
            *([(f"    revision: {_scalar(where.revision)}", "of the repository")] if where.revision else []),
            *([(f"    subfolder: {_scalar(where.subfolder)}", "in it")] if where.subfolder else []),
            (f"    description: {_scalar(described)}", "what it is like, in a line: judges read it"),
        ]
    lines += [
        ("personas:", "who speaks: weights over the attributes"),
        ("  kind: one-hot", "each attribute alone; or simplex, explicit, dirichlet, cover, file, mbti"),
        ("  control: true", "and the bare model beside them, to compare with"),
        *([("  profile: A school teacher of 36 who likes to hike.", "who the personas are: an attribute reads it")]
          if "profile" in adapters else []),
        *([("  personality: Warm and direct.", "what they are like: an attribute reads it")]
          if {"profile", "personality"} & set(adapters) else []),
        ("prompts:", "what they are asked"),
        (f"  file: {_scalar(prompts)}", "lines of JSON, a CSV or Parquet table, ..."),
        ("  limit: null", "how many of them at most; null: all"),
        (f"  license: {'null' if options.prompts else OWN_LICENSE}", "of the prompts, by the Hub's name"),
        ("samples_per_cell: 1", "texts for each prompt and persona"),
        ("decoder:", "how texts are drawn"),
        ("  name: scr-exact", "from the target itself, without loss; docs/decoders.md has the others"),
        ("  aggregate: product", "all of a persona's attributes in every token; sum: one or another for a while"),
        ("  strength: 1.0", "of the attributes: 1 as trained, more is louder and less fluent"),
        ("  temperature: 0.8", "lower is more predictable"),
        ("  max_new_tokens: 96", "longest text, in tokens"),
        ("judges:", "who scores the texts, from 0 to 1"),
        ("  - kind: classifier", "on this machine; scores the attributes that it knows"),
    ]  # fmt: skip
    if options.judge_url or options.judge_model:
        lines.append(("  - kind: openai", "a model behind an endpoint, by the attributes' descriptions"))
        lines.append((f"    model: {_scalar(options.judge_model or 'default')}", "as the endpoint names it"))
        if options.judge_url:
            lines.append((f"    base_url: {_scalar(options.judge_url)}", "of the endpoint"))
        lines.append(("    api_key_env: OPENAI_API_KEY", "environment variable that holds its key"))
    lines += [
        ("card:", "what only you know of the data set, for its card"),
        (f"  language: {'[]' if options.prompts else '[en]'}", "of the texts, e.g. [en]"),
    ]
    return [*lines, ("seed: 0", "another seed, other texts"), ("output: out", "folder of the data set")]


def _written(lines: Sequence[Line]) -> str:
    return "".join(f"{f'{text:<{_COMMENT_AT - 2}}  ' if text else ''}# {said}\n" for text, said in lines)


def _source(folder: Path, adapter: Place) -> str:
    return adapter.source if adapter.folder is None else _from(folder, Path(adapter.source))


def _card(adapter: Place) -> dict[str, Any]:
    """What is known of an adapter: ``description``, ``base_model``, ``template``."""
    found: dict[str, Any] = {}
    for name, fields in (
        ("adapter_config.json", ("base_model_name_or_path",)),
        ("card.json", ("description", "base_model", "template")),
    ):
        try:
            file = adapter.file(name)
            data = {} if file is None else json.loads(file.read_text("utf-8"))
            found |= {field.removesuffix("_name_or_path"): data[field] for field in fields if data.get(field)}
        except (OSError, ValueError, AttributeError, PlaceError):
            continue
    return found


def _model(options: argparse.Namespace, cards: Mapping[str, Mapping[str, Any]]) -> str:
    bases = dict.fromkeys(str(card["base_model"]) for card in cards.values() if "base_model" in card)
    if options.model is None and len(bases) > 1:
        raise InputError(
            f"--adapter: trained on different models ({', '.join(bases)}); say with --model which is meant"
        )
    model = options.model or next(iter(bases), _MODEL)
    return _from(options.folder, Path(model)) if Path(model).is_dir() else str(model)


def _template(cards: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """What the chat template is told, as in the adapters' training; what they don't agree about is left out."""
    told = [each["template"] if isinstance(each.get("template"), dict) else {} for each in cards.values()]
    said = "as in the adapters' training"
    lines = []
    for name, field in (("arguments", "template_arguments"), ("date", "date"), ("system_role", "system_role")):
        values = [each.get(name) for each in told]
        if values and values[0] is not None and all(value == values[0] for value in values):
            # JSON is YAML, and keeps a date text.
            lines.append((f"  {field}: {json.dumps(values[0], ensure_ascii=False)}", f"of the chat template, {said}"))
    return lines


def _from(folder: Path, path: Path) -> str:
    """A path as it is seen from the job's folder; the folders between them as they really are."""
    absolute = Path(os.path.abspath(path))
    seen = os.path.relpath(Path(os.path.realpath(absolute.parent)) / absolute.name, os.path.realpath(folder))
    return seen if seen.startswith("..") else f"./{seen}"


def _scalar(text: str) -> str:
    """The text as YAML, on one line."""
    return (
        yaml.safe_dump(text, allow_unicode=True, width=10**6, default_style=None)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
