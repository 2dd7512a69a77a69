"""A data set's manifest: every file with its rows, bytes and checksum, and what is no longer as it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.store.files import exists, files_below, read_bytes, read_text, write_bytes

DATASET_MANIFEST = "manifest.json"


def write_manifest(output: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Write the data set's manifest: what was written into its folders. Raises OSError."""
    write_files(output, {f"{folder}/{entry['file']}": entry for folder, some in tables.items() for entry in some})


def write_files(output: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """The same by file: folder/file -> rows, bytes, SHA-256. Raises OSError."""
    kept = {name: {key: entry[key] for key in ("rows", "bytes", "sha256")} for name, entry in files.items()}
    write_bytes((json.dumps(kept, indent=2) + "\n").encode(), output / DATASET_MANIFEST)


def files_of(output: Path) -> dict[str, dict[str, Any]]:
    """folder/file -> its rows, bytes and SHA-256, by the data set's manifest; empty where there is none.

    Raises:
        OSError: it can't be read now.
    """
    try:
        return dict(json.loads(read_text(output / DATASET_MANIFEST)))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return {}


def changed_files(output: Path) -> dict[str, str]:
    """What of a data set is not as its manifest says: file -> how; empty: all is.

    Raises:
        OSError, ValueError: there is no manifest, or it can't be read.
    """
    files = json.loads(read_text(output / DATASET_MANIFEST))
    problems = {}
    for name, entry in files.items():
        path = output / name
        if not exists(path):
            problems[name] = "missing"
        elif hashlib.sha256(read_bytes(path)).hexdigest() != entry["sha256"]:
            problems[name] = f"not the {entry['bytes']} bytes that were written"
    places = [name.split("/") for name in files_below(output)]
    found = {"/".join(each) for each in places if len(each) == 2 and each[0][0] != "." and each[1].endswith(".parquet")}
    return problems | {name: "not in the manifest" for name in sorted(found - set(files))}
