"""No place of a machine and no key is published, wherever it stands; and what is neither stays as it is."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from evaluation.tables import escaped
from pipeline.publish.hub.portable import Machine, card_as_published, job_as_published, record_as_published
from tests.hub_commits import CommitHub
from tests.hub_desk import Publisher, make_data_set

OF_A_MACHINE = ("/home/", "/srv/", "alice", "gpu-01", "10.0.0.7", "\\\\")


def machine(*hosts: str) -> Machine:
    return Machine(("/srv/team/runs", "/home/alice"), list(hosts))


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("read /home/alice/models/llama first", "read llama first"),
        ("`/srv/team/runs/out`.", "`out`."),
        ("(/Users/bob/x/final)", "(final)"),
        ("~/models/base and ~carol/x", "base and x"),
        ("file:///home/alice/a.jsonl", "a.jsonl"),
        (r"C:\Users\dave\base", "base"),
        ("/srv/team/runs", "runs"),
        (r"/home/al\_ice/my\_models/x and more", "x and more"),
        ("on gpu-01.corp.lan:8000 there", "on endpoint.invalid:8000 there"),
        # What tells nothing of a machine.
        ("owner/name@main/sub, and/or, 1/2, a // b", None),
        ("https://huggingface.co/datasets/me/x?download=1 hf://me/x/y s3://bucket/a/b", None),
        ("run /usr/bin/python in /etc/x", None),
        ("<a href='x'></a></b> </div></p>", None),
        ("data/train-*.parquet ./prompts.jsonl ../x", None),
        ("me@example.org wrote classifier@2+5b00ca3f", None),
    ],
)
def test_texts(text: str, published: str | None) -> None:
    here = machine("gpu-01.corp.lan")
    assert card_as_published(text.encode(), here) == (text if published is None else published).encode()
    assert (here.n_places > 0) == (published is not None)


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("key sk-abcdef1234567890", "key ***"),
        ("hf_abcDEF1234567890abcd", "***"),
        ("https://bob:pass@host.org/x", "https://***@host.org/x"),
        ("https://host.org/x?api_key=abc1&y=2", "https://host.org/x?api_key=***&y=2"),
        ("https://host.org/x?page=2", None),
        ("max_tokens=600 and token: none", None),
    ],
)
def test_keys(text: str, published: str | None) -> None:
    here = machine()
    assert card_as_published(text.encode(), here) == (text if published is None else published).encode()
    assert here.n_secrets == (published is not None)


def test_a_record_s_words_are_all_of_machines() -> None:
    content = json.dumps(
        {"ended": {"why": "/etc/x/y: is full"}, "labels": {"a@/opt/x": ["/mnt/a/b", 1, None]}}
    ).encode()
    clean = json.loads(record_as_published(content, machine()))
    assert clean == {"ended": {"why": "y: is full"}, "labels": {"a@x": ["b", 1, None]}}


def test_bytes_without_any_stay_as_they_are() -> None:
    content = (
        b'{"model": {"id": "me/x"},   "attributes": [], "prompts": {"file": "p", "dataset": null}, "personas": {}}'
    )
    assert job_as_published(content, machine()) == content
    assert record_as_published(content, machine()) == content
    assert card_as_published(b"\xff\r\n", machine()) == b"\xff\r\n"


def test_a_job_that_names_places_of_the_machine_everywhere(
    publisher: Publisher, hub: CommitHub, tmp_path: Path
) -> None:
    """Through the job file, the run's record and the card, to the Hub."""
    place = tmp_path / "home of_alice" / "secret_project"
    for name in ("E/final", "J/final", "base", "rho"):
        (place / name).mkdir(parents=True)
        (place / name / "adapter_config.json").write_text("{}")
        (place / name / "config.json").write_text("{}")
    (place / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    url = "http://gpu-01.internal.example:8000/v1"
    folder = make_data_set(
        tmp_path / "job",
        run={
            "ended": {"complete": True, "why": None, "status": 0},
            "calls": {"openai@judge": {"url": f"{url}/chat", "log": str(place / "judge.log")}},
            "machines": [f"{socket.gethostname()}: {place}/a log"],
        },
        model={"id": str(place / "base")},
        attributes=[
            {"name": "E", "adapter": str(place / "E" / "final"), "reference": str(place / "rho"), "description": "x"},
            {"name": "J", "adapter": str(place / "J" / "final"), "description": f"see {place}/notes"},
        ],
        prompts={"file": str(place / "prompts.jsonl")},
        judges=[{"kind": "openai", "model": "m", "base_url": url, "api_key_env": "SOME_KEY"}],
    )
    card = folder / "README.md"
    card.write_text(
        card.read_text() + f"\nMade in {place}/base, {escaped(str(place))}/x.log on {socket.gethostname()} by {url}.\n"
    )
    assert "secret_project" in (folder / "job.json").read_text() and "secret_project" in card.read_text()
    said = publisher("publish", folder, "--repo-id", "me/x")
    assert said.status == 0 and "places of this machine are published by their names alone" in said.out, said
    files = hub.data_set("me/x").find("main").files
    for name in ("README.md", "job.json", "run.json", "manifest.json", "published.json"):
        text = files[name].content.decode()
        for telling in ("secret", "home of", "gpu-01", tmp_path.name, "alice"):
            assert telling not in text, (name, telling)
        if any(char.isdigit() or char in "-." for char in socket.gethostname()):
            assert socket.gethostname() not in text, name
    job = json.loads(files["job.json"].content)
    assert job["model"]["id"] == "./base" and job["prompts"]["file"] == "./prompts.jsonl"
    assert [each["adapter"] for each in job["attributes"]] == ["./final", "./final-2"]
    assert job["judges"][0]["base_url"] == "http://endpoint.invalid/v1"
    assert publisher("publish", folder, "--repo-id", "me/x").out.count("nothing to do") == 1


def test_tables_that_name_a_place_of_the_machine(publisher: Publisher, hub: CommitHub, tmp_path: Path) -> None:
    folder = make_data_set(tmp_path / "job", message=f"no such file: {tmp_path}/weights.bin")
    said = publisher("publish", folder, "--repo-id", "me/x")
    assert said.status == 2 and "rejected/train-00000-of-00001.parquet: message (1 texts)" in said.line, said
    assert str(tmp_path / "weights") not in said.line and hub.asked == []
    said = publisher("publish", folder, "--repo-id", "me/x", "--local-names")
    assert said.status == 0 and "rejected/train-00000-of-00001.parquet" in hub.data_set("me/x").find("main").files
    make_data_set(tmp_path / "other", message="out of memory")
    assert publisher("publish", tmp_path / "other" / "out", "--dry-run").status == 0
