"""What the pipeline's tests share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.beam_servers import Servers
from tests.job_desk import Desk
from tests.once import options_of_classes, pictures_of_specifications, signatures_of_methods
from tests.run_process import finished, make_place, start
from tests.tiny_job import checksums, make_job

signatures_of_methods()
options_of_classes()
pictures_of_specifications()


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job over a tiny Llama, see tests/tiny_job.py."""
    return make_job(tmp_path)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with a job file, see tests/job_desk.py."""
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Beam's own job service and a pool of workers, see tests/beam_servers.py."""
    some = Servers(tmp_path_factory.mktemp("servers"))
    try:
        some.start()
        yield some
    finally:
        some.end()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job for runs in processes of their own, see tests/run_process.py."""
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def undisturbed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Checksums of its data set when nothing happens to it, and how long it takes."""
    here = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    assert finished(start(place, here)) == 0
    return checksums(here / "out"), time.monotonic() - started
