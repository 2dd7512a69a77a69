"""Preference pairs and questionnaires for tests: the project's own, and what the published ones are asked for.

The published pairs lie beside the project (``../shared/data``), not in it. Written for the tests, in plain voices,
12 pairs a dimension and 12 for each role-play attribute, ``tests/data/own_pairs.jsonl`` stands in for them where
they are missing; :func:`write_own_pairs` lays it out as the published files, so that one reader reads both. The
questionnaires are in ``own_yes_no.json`` and ``own_choices.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from personas.preferences import MBTI_FILE, ROLE_PLAY_FILE

OWN_DATA = Path(__file__).parent / "data"
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
N_OWN_PAIRS = 12  # a dimension, and a role-play attribute


def needs_real(*files: str, guards: str) -> pytest.MarkDecorator:
    """Skip a test where published files are missing, saying what goes unguarded and what stands in for it."""
    missing = [file for file in files if not (REAL_DATA / file).is_file()]
    reason = f"no {' or '.join(missing)} in ../shared/data: {guards}; the project's own data stands in"
    return pytest.mark.skipif(bool(missing), reason=reason)


def write_own_pairs(folder: Path) -> Path:
    """Lay the project's pairs out as the published files; returns the folder."""
    rows = [json.loads(line) for line in (OWN_DATA / "own_pairs.jsonl").read_text("utf-8").splitlines()]
    for file, key in ((MBTI_FILE, "pole"), (ROLE_PLAY_FILE, "attribute")):
        pq.write_table(pa.Table.from_pylist([row for row in rows if key in row]), folder / file)
    return folder
