"""A desk to write job files at: the tests of the job file share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job, shipped_adapters

JOB = """\
name: entj-demo
model: {id: embedded/smollm2-135m-instruct}
attributes: [E, N, T, J]
personas: {kind: simplex, steps: 2, control: true}
prompts: {file: prompts.jsonl}
samples_per_cell: 1
decoder: {name: scr-exact, aggregate: sum, horizon: 8, chunk_len: 8, max_new_tokens: 96,
          temperature: 0.8, top_p: 0.95, top_k: 0, strength: 1.0, window: 64, max_tries: 8}
judges: [{kind: classifier}, {kind: persona-match}]
batch_size: 32
rows_per_shard: null
max_rejected_fraction: 0.1
seed: 0
output: out/entj-demo
"""


class Desk:
    """A folder with a job file, prompts and four shipped adapters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in "ENTJ":
            self.adapter(f"shipped/{name}")
        (folder / "shipped" / "unfinished").mkdir()
        (folder / "prompts.jsonl").write_text('{"prompt": "Hi"}\n{"prompt": "Yo", "id": "yo"}\n')
        self.write(JOB)

    def adapter(self, place: str) -> Path:
        folder = self.folder / place
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        return folder

    def write(self, text: str | bytes) -> Path:
        path = self.folder / "job.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, *overrides: str) -> Job:
        shipped = shipped_adapters(self.folder / "shipped")
        return load_job(self.folder / "job.yaml", overrides, shipped=shipped)

    def lines(self, *overrides: str) -> list[str]:
        """The error's lines, without the file's name, which each must begin with."""
        with pytest.raises(JobError) as caught:
            self.load(*overrides)
        start = f"{self.folder / 'job.yaml'}: "
        lines = [*caught.value.lines, str(caught.value)]
        assert all(line.startswith(start) and len(line.splitlines()) == 1 for line in lines)
        return [line.removeprefix(start) for line in caught.value.lines]

    def line(self, *overrides: str) -> str:
        (line,) = self.lines(*overrides)
        return line
