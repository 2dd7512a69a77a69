"""A whole job over a tiny random Llama, in files; the pipeline's tests run it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tests.fakes import tiny_adapter, tiny_llama

PROMPTS = ("hello you", "what now?", "tell me more")


def make_job(folder: Path, prompts: tuple[str, ...] = PROMPTS, **changes: Any) -> Path:
    """A job file with two attributes that the judge knows, with its model, adapters and prompts beside it."""
    base = tiny_llama(folder / "base")
    for seed, name in enumerate("EJ", start=1):
        tiny_adapter(base, folder / name, seed=seed)
    write_prompts(folder, prompts)
    return write_job(folder, **changes)


def tiny_token(char: str) -> int:
    """The tiny tokenizer's id of a character."""
    from tests.fakes import TINY_ALPHABET

    return TINY_ALPHABET.index(char)


def write_prompts(folder: Path, prompts: tuple[str, ...]) -> None:
    """The job's prompts, p0 and on."""
    lines = (json.dumps({"id": f"p{i}", "prompt": text}) + "\n" for i, text in enumerate(prompts))
    (folder / "prompts.jsonl").write_text("".join(lines))


def write_job(folder: Path, **changes: Any) -> Path:
    """The job file alone, with some fields changed."""
    job: dict[str, Any] = {
        "name": "tiny",
        "model": {"id": "base", "dtype": "float32"},
        "attributes": [{"name": "E", "adapter": "E"}, {"name": "J", "adapter": "J"}],
        "personas": {"kind": "simplex", "steps": 2, "control": True},
        "prompts": {"file": "prompts.jsonl"},
        "decoder": {"name": "scr-exact", "max_new_tokens": 12, "chunk_len": 4, "top_p": 0.95},
        "batch_size": 4,
        "rows_per_shard": 5,
        "output": str(folder / "out"),
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job | changes))
    return path


def rows(output: Path, table: str = "data") -> list[dict[str, Any]]:
    """A data set's rows of one table."""
    return [row for path in sorted((output / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def checksums(output: Path) -> dict[str, str]:
    """Of all files of a data set but `run.json`, which has times in it."""
    files = [path for path in output.rglob("*") if path.is_file() and ".work" not in path.parts]
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "run.json"
    }
