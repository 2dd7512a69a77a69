"""A desk to publish from: a small data set made without a model, and a process that runs `mpg publish`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import yaml

from pipeline.job.load import load_job
from pipeline.job.model import shipped_adapters
from pipeline.publish.data_set import digest, write_data_set, write_rows
from pipeline.store.schema import GENERATIONS, JUDGMENTS, REJECTED
from tests.job_desk import JOB

ROOT = Path(__file__).parents[1]
ROW: dict[str, Any] = {
    **{field.name: "" for field in GENERATIONS if field.type == pa.string()},
    **{field.name: 1 for field in GENERATIONS if pa.types.is_integer(field.type)},
    **{field.name: [] for field in GENERATIONS if pa.types.is_list(field.type)},
    **{"exact": True, "acceptance_rate": 0.5, "tv_bound": None, "log_prob_reference": -1.0},
}
RUN: dict[str, Any] = {
    "job": "entj-demo",
    "ended": {"complete": True, "why": None, "status": 0},
    "model": "m@1",
    "dtype": "float32",
    "counts": {"rows": 0, "rejected": 0},
    "accept": None,
    "judges": ["classifier@2"],
    "licences": [{"what": "model", "name": "m", "license": None, "said_by": "nobody"}],
}


def make_data_set(
    folder: Path,
    n_rows: int = 6,
    *,
    run: dict[str, Any] | None = None,
    licence: str | None = "apache-2.0",
    message: str | None = None,
    **job: Any,
) -> Path:
    """A data set of so many rows and two judgments each, by the project's own functions; returns its folder.

    Args:
        folder: of the job file; the data set is in ``out`` below it. Made again there, it is exchanged.
        run: what its record says beside ``RUN``.
        licence: that its job states; ``None``: none, and its model's is not known.
        message: of a rejected row; ``None``: there is none.
        job: fields of the job.
    """
    (folder / "shipped").mkdir(parents=True, exist_ok=True)
    for name in "ENTJ":
        (folder / "shipped" / name).mkdir(exist_ok=True)
        (folder / "shipped" / name / "adapter_config.json").write_text("{}")
    (folder / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    (folder / "job.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(JOB) | {"output": "out", "card": {"license": licence}} | job)
    )
    read = load_job(folder / "job.yaml", shipped=shipped_adapters(folder / "shipped"))
    rows = [ROW | {"row_id": f"r{i}", "prompt_id": f"p{i}", "response": f"text {i} ü \0"} for i in range(n_rows)]
    judged = [
        {"row_id": row["row_id"], "attribute": name, "judge": "classifier@2", "score": i / n_rows, "status": "ok"}
        for i, row in enumerate(rows)
        for name in "EJ"
    ]
    tables = {
        "generations": pa.Table.from_pylist(rows, schema=GENERATIONS),
        "judgments": pa.Table.from_pylist(judged, schema=JUDGMENTS),
        "rejected": pa.Table.from_pylist(
            [] if message is None else [{"row_id": "dead", "reason": "failed", "message": message}], schema=REJECTED
        ),
    }
    record = RUN | {"counts": {"rows": n_rows, "rejected": 0}} | (run or {})
    read.output_folder.mkdir(parents=True, exist_ok=True)
    coming = write_rows(read.output_folder, read, [tables])
    write_data_set(read.output_folder, coming, read, digest(coming, read, ["classifier@2"]), record)
    return read.output_folder


def edit(folder: Path, words: str = "more of it") -> None:
    """Write something into a data set's card."""
    card = folder / "README.md"
    card.write_text(f"{card.read_text('utf-8')}\n{words}\n", "utf-8")


@dataclass(frozen=True)
class Said:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that says what is wrong."""
        (line,) = [each for each in self.err.splitlines() if each.startswith("mpg: ")]
        return line

    @property
    def everything(self) -> str:
        return self.out + self.err


# The Hub's client and `datasets` read the endpoint when they are imported: commands run in a process of their own, one
# for many of them.
_DRIVER = """
import contextlib, io, json, logging, sys
from pipeline.cli import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = int(main(json.loads(line)))
        except SystemExit as end:
            status = int(end.code)
    logging.getLogger().handlers.clear()
    print("SAID" + json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


@dataclass
class Publisher:
    """``mpg publish`` against an endpoint, from one process; what its libraries say to stderr is in ``log``."""

    endpoint: str
    token: str
    home: Path
    more: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Publisher:
        self.home.mkdir(parents=True, exist_ok=True)
        self._errors = (self.home / "stderr.txt").open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self.environment(),
            cwd=ROOT,
            text=True,
        )
        return self

    def environment(self) -> dict[str, str]:
        own = {"HF_HOME": str(self.home / "hf"), "HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.token}
        return os.environ | own | {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)} | self.more

    def __call__(self, *words: str | Path) -> Said:
        """Run ``mpg`` with these words."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("SAID"):
                return Said(*json.loads(line.removeprefix("SAID")))
        raise AssertionError(self.log)

    @property
    def log(self) -> str:
        return (self.home / "stderr.txt").read_text()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._errors.close()
