"""What a model's chats are read with, beside its weights: chat template, vocabulary and end tokens of its folder.

A row's identity knows a folder by its weights. It is too late to put these into it as well: every row of every data set
would become another one. So a data set notes, for each model, what its rows were read with, and a run that would go on
with something else is refused: rows of two kinds would stand side by side, as if they were of one.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from personas.prompts import canonical_json
from pipeline.plan.plan import Plan
from pipeline.store.dataset import RUN_FILE, WORK_FOLDER
from pipeline.store.files import listing, read_text, write_bytes

FILE = "read-with.json"  # in the work folder: model's label -> part -> hash; in run.json for good


def parts_of(plan: Plan) -> dict[str, str]:
    """The parts, each by a hash of what it says, whatever version of whatever library has read it."""
    tokenizer = plan.tokenizer
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    found = {
        "chat template": tokenizer.get_chat_template(),
        "tokenizer": canonical_json([tokenizer.get_vocab(), special]),
        "end tokens": canonical_json(sorted(plan.ends.ids)),
    }
    return {name: hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16] for name, text in found.items()}


def problem_with(output: Path, plan: Plan) -> str | None:
    """Why a data set can't be gone on with, in one line; ``None``: it can, or nobody noted what it was read with."""
    there = any(listing(output / WORK_FOLDER / name, ".parquet") for name in ("generations", "rejected"))
    changed = change_since(output, plan) if there else None
    return None if changed is None else f"{changed}; bring the earlier files back, or give another output"


def change_since(output: Path, plan: Plan) -> str | None:
    """What is another than noted beside a data set's rows; ``None``: nothing, or nobody noted it."""
    noted = _kept(output).get(plan.sources.model_label, {})
    other = [name for name, value in parts_of(plan).items() if noted.get(name, value) != value]
    if not other:
        return None
    return f"model.id: the {' and '.join(other)} in {plan.sources.model} changed since rows of {output} were written"


def keep(output: Path, plan: Plan) -> None:
    """Note it for the runs that go on. Raises OSError."""
    found = _kept(output) | {plan.sources.model_label: parts_of(plan)}
    write_bytes((json.dumps(found, indent=2) + "\n").encode(), output / WORK_FOLDER / FILE)


def _kept(output: Path) -> dict[str, dict[str, str]]:
    with suppress(FileNotFoundError, ValueError, TypeError):
        return dict(json.loads(read_text(output / WORK_FOLDER / FILE)))
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):  # a copy without its work folder
        run = json.loads(read_text(output / RUN_FILE))
        return {run["model"]: dict(run["read_with"])}
    return {}
