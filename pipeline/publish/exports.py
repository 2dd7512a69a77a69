"""The forms to train on that lie in a data set (`mpg export`): what each was made of, and whether it still fits.

A form's files note in their footers what they were made with, and of which files of the data set. When rows or scores
change, a form that was made of others is no part of the data set any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.dataset import FOLDERS, FORMS
from pipeline.store.files import here
from pipeline.store.layout import files_in
from pipeline.store.manifest import files_of

logger = logging.getLogger(__name__)

_KEY = b"mpg.export"


def noted(table: pa.Table, options: str, files: Mapping[str, Mapping[str, Any]], *, reads_scores: bool) -> pa.Table:
    """A form's table with a note of what it was made of.

    Args:
        options: of the command line that makes it again.
        files: of the data set's manifest. reads_scores: whether judgments matter.
    """
    note = {"options": options, "reads_scores": reads_scores, "made_of": _made_of(files, reads_scores)}
    return table.replace_schema_metadata({_KEY: json.dumps(note, sort_keys=True)})


def fitting(output: Path, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Of the forms in a data set those that were made of these files: folder/file -> what the manifest says of it.

    Args:
        files: of ``data/`` and ``judgments/``, as a manifest has them.
    """
    found: dict[str, Mapping[str, Any]] = {}
    entries = files_of(output)
    for form in FORMS:
        mine = {name: entry for name, entry in entries.items() if name.startswith(f"{form}/")}
        note = _note(output / form)
        if mine and note is not None and note["made_of"] == _made_of(files, note["reads_scores"]):
            found |= mine
    return found


def say_what_goes(output: Path, kept: Mapping[str, Any]) -> list[str]:
    """The forms that the data set has and that are not kept, after a line for each on how to make it again."""
    gone = [form for form in FORMS if form in _folders(files_of(output)) - _folders(kept)]
    for form in gone:
        options = (_note(output / form) or {"options": f"--format {form}"})["options"]
        logger.warning(
            "%s: was made of other rows or scores than the data set has now, and is removed; make it again with "
            "mpg export %s %s",
            output / form,
            shlex.quote(str(output)),
            options,
        )
    return gone


def _folders(files: Iterable[str]) -> set[str]:
    return {name.partition("/")[0] for name in files}


def _note(folder: Path) -> dict[str, Any] | None:
    """What a form's files say of themselves; ``None``: there are none, or they say nothing.

    Raises:
        OSError: a store does not give them now.
    """
    for path in map(here, files_in(folder)[:1]):
        try:
            note = json.loads((pq.read_schema(path).metadata or {})[_KEY])
            return {"options": str(note["options"]), "reads_scores": note["reads_scores"], "made_of": note["made_of"]}
        except (OSError, KeyError, ValueError, TypeError):
            return None
    return None


def _made_of(files: Mapping[str, Mapping[str, Any]], reads_scores: bool) -> str:
    """A name for the contents of a data set's files."""
    tables = [FOLDERS["generations"], *([FOLDERS["judgments"]] if reads_scores else [])]
    content = {name: entry["sha256"] for name, entry in files.items() if name.partition("/")[0] in tables}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
