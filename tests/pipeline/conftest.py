"""What the pipeline's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.job_desk import Desk
from tests.tiny_job import make_job


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job over a tiny Llama, see tests/tiny_job.py."""
    return make_job(tmp_path)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with a job file, see tests/job_desk.py."""
    return Desk(tmp_path)
