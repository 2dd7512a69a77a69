"""No token and no signed URL is ever printed or logged, whatever the Hub's client is told to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub_commits import CommitHub, Fault
from tests.hub_desk import Publisher

TALKATIVE = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "HTTPX_LOG_LEVEL": "debug"}
SIGNED = "signature-that-nobody-prints"


@pytest.mark.parametrize("verbose", [("-v",), pytest.param((), marks=pytest.mark.long)])
def test_with_all_logs_on(
    served: tuple[CommitHub, str], hub: CommitHub, data_set: Path, tmp_path: Path, verbose: tuple[str, ...]
) -> None:
    hub.faults += [
        Fault(r"PUT /lfs/", status=500),
        Fault(r"POST .*/commit/", how="lose"),
        Fault(r"GET .*/refs", status=503, words=f"Bearer {hub.token} is tired, and so is {hub.token}"),
    ]
    with Publisher(served[1], hub.token, tmp_path / "home", TALKATIVE) as publisher:
        said = publisher(*verbose, "publish", data_set, "--repo-id", "me/x", "--private")
        assert said.status == 0, said
        hub.faults[:] = [Fault(r"/objects/batch", status=403, words=f"no room for {hub.token}", times=9)]
        refused = publisher(*verbose, "publish", data_set, "--repo-id", "me/y")
        assert refused.status == 1 and "no room for ***" in refused.line
    everything = said.everything + refused.everything + publisher.log
    lines = [line.rpartition("Request ")[2] for line in said.err.splitlines() if "Request " in line]
    assert lines and len(lines) == len(set(lines))  # each once, by the client's own logger or by ours
    assert "Send: curl" in everything and "/lfs/me/x/" in everything  # they did talk
    assert hub.token not in everything and hub.token[3:] not in everything and SIGNED not in everything
    assert not [each for each in hub.asked if hub.token in each]


def test_a_password_in_the_endpoint(
    served: tuple[CommitHub, str], hub: CommitHub, data_set: Path, tmp_path: Path
) -> None:
    endpoint = served[1].replace("http://", "http://user:password9876@")
    with Publisher(endpoint, hub.token, tmp_path / "home") as publisher:
        said = publisher("publish", data_set, "--repo-id", "me/x", "--dry-run")
    assert "password9876" not in said.everything + publisher.log
