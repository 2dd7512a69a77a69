"""What is no Python, by its own linters: scripts, the image, GitHub's workflow. The extra `dev` brings them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_KINDS = {"shellcheck": ("*.sh",), "hadolint": ("Dockerfile",), "actionlint": ("github/*.yml",)}
_OPTIONS = {"actionlint": ("-shellcheck=",)}  # steps are expressions and shell in one


@pytest.mark.parametrize("linter", _KINDS)
def test_the_linter_has_nothing_to_say(linter: str) -> None:
    files = [path for pattern in _KINDS[linter] for path in (ROOT / "workflows").rglob(pattern)]
    assert files
    command = [Path(sys.executable).parent / linter, *_OPTIONS.get(linter, ()), *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
