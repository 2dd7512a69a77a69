"""One Hub and one publishing process for a module; each test has repositories, faults and counts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_commit_server import serving_commits
from tests.hub_commits import CommitHub
from tests.hub_desk import Publisher, make_data_set


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[CommitHub, str]]:
    hub = CommitHub()
    with serving_commits(hub) as endpoint:
        yield hub, endpoint


@pytest.fixture(scope="module")
def publisher(served: tuple[CommitHub, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    hub, endpoint = served
    with Publisher(endpoint, hub.token, tmp_path_factory.mktemp("home")) as publisher:
        yield publisher


@pytest.fixture
def hub(served: tuple[CommitHub, str]) -> CommitHub:
    hub, _ = served
    hub.faults.clear()
    hub.asked.clear()
    hub.repositories.clear()
    hub.received = hub.received_large = 0
    hub.part_size, hub.page = None, 1000
    return hub


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    return make_data_set(tmp_path / "job")
