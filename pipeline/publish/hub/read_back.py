"""What was published, asked for again: every file's hash, and some rows by the road that readers take."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.publish.hub.client import HubClient
from pipeline.publish.hub.compare import Contents
from pipeline.publish.hub.errors import Passing, PublishError, problem_of

N_ROWS = 3  # of each split of each configuration
_MOST_SHOWN = 3


def other_files(client: HubClient, commit: str, ours: Mapping[str, Contents]) -> list[str]:
    """How the files of a commit differ from ours, a line each; empty: not at all. Raises PublishError."""
    there = client.files(commit)
    found = []
    for path, each in ours.items():
        if path not in there:
            found.append(f"{path} is not there")
        elif not each.is_same(there[path]):
            found.append(f"{path} is another there ({there[path].size} bytes, {each.size} here)")
    return found


def other_rows(client: HubClient, commit: str, folder: Path) -> list[str]:
    """How the first rows of each configuration, loaded from a commit, differ from the folder's own; empty: not at all.

    Raises:
        PublishError: they can't be read now.
    """
    from datasets import get_dataset_config_names

    token = client.token if client.token is not None else False
    try:
        configs = get_dataset_config_names(str(folder))
    except Exception as error:
        return [f"load_dataset does not open {folder}: {problem_of(error, 'configs', client.token)}"]
    found: list[str] = []
    for config in configs:
        here = _rows(str(folder), config)

        def there(config: str = config) -> dict[str, list[str]]:
            try:
                return _rows(client.repo_id, config, revision=commit, token=token)
            except Exception as error:
                raise problem_of(error, f"{client.repo_id}: load_dataset of {config}", client.token) from error

        try:
            read = client.patience.over(there)
        except PublishError as problem:
            if isinstance(problem.__cause__, Passing):
                raise
            found.append(str(problem))
            continue
        for split in sorted({*here, *read}):
            if here.get(split) != read.get(split):
                found.append(f"config {config}, split {split}: other rows than here ({_difference(here, read, split)})")
    return found


def _rows(place: str, config: str, **how: Any) -> dict[str, list[str]]:
    """Split -> its first rows, each as JSON, in which no-numbers are equal to themselves."""
    from datasets import load_dataset

    loaded = load_dataset(place, config, streaming=True, **how)
    return {
        str(split): [json.dumps(row, sort_keys=True, default=repr) for row in itertools.islice(rows, N_ROWS)]
        for split, rows in loaded.items()
    }


def _difference(here: Mapping[str, list[str]], read: Mapping[str, list[str]], split: str) -> str:
    if split not in here or split not in read:
        return "a split that is not there" if split in here else "a split that is not here"
    pairs = itertools.zip_longest(here[split], read[split])
    return f"row {next(n for n, (ours, theirs) in enumerate(pairs) if ours != theirs)}"


def shown(lines: list[str]) -> str:
    """Some of what differs, in a line."""
    more = f"; and {len(lines) - _MOST_SHOWN} more" if len(lines) > _MOST_SHOWN else ""
    return "; ".join(lines[:_MOST_SHOWN]) + more
