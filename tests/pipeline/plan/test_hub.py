"""Models and adapters on the Hub, through a real server: pinned to commits, and one line at the right field else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import tiny_adapter
from tests.hub_server import GATED, Hub, serving_hub
from tests.tiny_job import make_job, rows, write_job

# The Hub's client reads its endpoint and cache when it is imported, so that commands run in a process of their own.
DRIVER = """
import contextlib, io, json, sys
from pipeline.cli import main
said = []
for command in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(command)
    said.append([int(status), out.getvalue(), err.getvalue()])
print("SAID" + json.dumps(said))
"""


def commands(home: Path, endpoint: str, *each: list[str], **environment: str) -> list[tuple[int, str, str]]:
    """Run `mpg` commands in one process: status, stdout, stderr of each."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(each),
        env=os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "SAID" in done.stdout, done.stderr
    return [tuple(entry) for entry in json.loads(done.stdout.rpartition("SAID")[2])]


def mistakes(said: tuple[int, str, str]) -> list[str]:
    assert said[0] == 2, said
    return [line for line in said[2].splitlines() if line.startswith("mpg: ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    make_job(folder)
    return folder


@pytest.fixture
def hub(place: Path) -> Iterator[tuple[Hub, str]]:
    hub = Hub()
    with serving_hub(hub) as endpoint:
        yield hub, endpoint


def job(place: Path, name: str, **changes: Any) -> str:
    path = write_job(place, **({"output": str(place / name), "judges": []} | changes))
    return str(path.rename(place / f"{name}.yaml"))


@pytest.mark.long
def test_an_adapter_in_a_subfolder_at_a_tag(place: Path, hub: tuple[Hub, str], tmp_path: Path) -> None:
    server, endpoint = hub
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(place / "E", first / "e" / "v1")
    shutil.copytree(place / "base", first / "model")
    shutil.copytree(first, second)
    tiny_adapter(place / "base", second / "e" / "v1", seed=9)
    tagged = server.push("me/adapters", first, "v1")
    newest = server.push("me/adapters", second)
    base = server.push("me/base", place / "base")
    adapter = {"name": "E", "adapter": "me/adapters", "subfolder": "e/v1"}
    hub_job = {
        "model": {"id": "me/base", "dtype": "float32"},
        "attributes": [adapter | {"revision": "v1"}, {"name": "J", "adapter": "J"}],
    }
    files = [
        job(place, "tag", **hub_job),
        job(place, "newest", **hub_job | {"attributes": [adapter, {"name": "J", "adapter": "J"}]}),
        job(place, "local"),
    ]
    again = ["verify", str(place / "tag")]
    said = commands(tmp_path / "home", endpoint, *(["run", file] for file in files), again)
    assert [each[0] for each in said] == [0, 0, 0, 0], said
    tag, new, local = (
        {(r["prompt_id"], r["persona"]): r for r in rows(place / name)} for name in ("tag", "newest", "local")
    )
    one = ("p0", "E1.00")
    assert tag[one]["adapters"] == [f"{tagged}:e/v1"] and new[one]["adapters"] == [f"{newest}:e/v1"]
    assert tag[one]["model"] == f"me/base@{base}"
    # The weights are those of the folder, and the texts differ by their seeds alone: another id, another stream.
    assert tag[one]["row_id"] != new[one]["row_id"] != local[one]["row_id"]
    # Without a network, from the cache: the same rows, none is written anew.
    (offline, verified) = commands(tmp_path / "home", "http://127.0.0.1:9", ["run", files[0]], again)
    assert offline[0] == 0 and "(0 new, 12 kept" in offline[1], offline
    assert verified[0] == 0, verified


def test_a_description_that_lies_beside_an_adapter_of_the_hub(
    place: Path, hub: tuple[Hub, str], tmp_path: Path
) -> None:
    server, endpoint = hub
    server.push("me/base", place / "base")
    server.push("me/bare", place / "E")
    shutil.copytree(place / "E", tmp_path / "described")
    (tmp_path / "described" / "card.json").write_text(json.dumps({"description": "asks back"}))
    server.push("me/described", tmp_path / "described")
    judge = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "SOME_KEY"}
    files = [
        job(
            place, f"curious-{name}", judges=[judge], personas={"kind": "one-hot"},
            attributes=[{"name": "curious", "adapter": f"me/{name}"}],
        )
        for name in ("described", "bare")
    ]  # fmt: skip
    described, bare = commands(tmp_path / "home", endpoint, *(["check", file] for file in files), SOME_KEY="x")
    assert described[0] == 0, described
    assert [line for line in mistakes(bare) if "curious: has no description" in line]


def test_whatever_the_hub_answers_is_one_line_at_its_field(place: Path, hub: tuple[Hub, str], tmp_path: Path) -> None:
    server, endpoint = hub
    server.push("me/e", place / "E")
    server.push("me/base", place / "base")
    (tmp_path / "empty").mkdir()
    server.push("me/empty", tmp_path / "empty")
    server.push("me/closed", place / "E")
    server.refusals["me/closed"] = GATED
    server.push("me/broken", place / "E")
    server.refusals["me/broken"] = (500, "")
    j = {"name": "J", "adapter": "J"}

    def with_e(**changes: Any) -> dict[str, Any]:
        return {"attributes": [{"name": "E", "adapter": "me/e"} | changes, j]}

    def with_model(**changes: Any) -> dict[str, Any]:
        return {"model": {"id": "me/base", "dtype": "float32"} | changes}

    cases: dict[str, tuple[dict[str, Any], str]] = {
        "nobody": (with_e(adapter="me/nobody"), "attributes[0].adapter: me/nobody is no folder here and no repository"),
        "revision": (with_e(revision="v9"), "attributes[0].revision: me/e has no revision 'v9' on the Hub; name a"),
        "subfolder": (with_e(subfolder="x"), "attributes[0].adapter: me/e@"),
        "empty": (with_e(adapter="me/empty"), "has neither adapter_config.json nor config.json"),
        "gated": (with_e(adapter="me/closed"), "attributes[0].adapter: me/closed is gated: ask for access"),
        "reference": (with_e(reference="me/nobody"), "attributes[0].reference: me/nobody is no folder here and no"),
        "its-revision": (
            with_e(reference="me/base", reference_revision="v9"),
            "attributes[0].reference_revision: me/base has no revision 'v9'",
        ),
        "no-model": (with_model(id="me/nobody"), "model.id: me/nobody is no folder here and no repository on the Hub"),
        "model-tag": (with_model(revision="v9"), "model.revision: me/base has no revision 'v9' on the Hub"),
        "closed": (with_model(id="me/closed"), "model.id: me/closed is gated"),
    }
    files = {name: job(place, name, **change) for name, (change, _) in cases.items()}
    said = commands(
        tmp_path / "home", endpoint,
        *(["check", file] for file in files.values()),
        ["check", job(place, "broken", **with_e(adapter="me/broken"))],
        ["run", job(place, "broken", **with_e(adapter="me/broken"))],
    )  # fmt: skip
    for (name, (_, words)), each in zip(cases.items(), said, strict=False):
        (line,) = mistakes(each)
        assert f"{name}.yaml: " in line and words in line, (name, line)
    assert said[-2][0] == 0 and "note: attributes[0].adapter: me/broken is no folder here and not in" in said[-2][1]
    (line,) = mistakes(said[-1])
    assert "attributes[0].adapter: me/broken" in line and "500 Internal Server Error" in line


@pytest.mark.parametrize("environment", [{}, pytest.param({"HF_HUB_OFFLINE": "1"}, marks=pytest.mark.long)])
def test_without_a_network_the_field_is_named_and_check_still_works(
    place: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    adapter = job(place, "a", attributes=[{"name": "E", "adapter": "me/e"}, {"name": "J", "adapter": "J"}])
    model = job(place, "m", model={"id": "me/base", "dtype": "float32"})
    said = commands(
        tmp_path / "home", "http://127.0.0.1:9",
        ["run", adapter], ["run", model], ["plan", adapter], ["check", adapter], ["check", model],
        ["infer-weights", str(place / "pairs.jsonl"), "--attributes", "E=me/e@v1/sub", "--output",
         str(place / "x.yaml"), "--model", str(place / "base")],
        ["questionnaire", adapter],
        **environment,
    )  # fmt: skip
    why = "HF_HUB_OFFLINE keeps it from being fetched" if environment else "http://127.0.0.1:9 can't be reached ("
    fields = ("attributes[0].adapter: me/e", "model.id: me/base", "attributes[0].adapter: me/e")
    for each, field in zip([*said[:3], said[6]], [*fields, fields[0]], strict=True):
        (line,) = mistakes(each)
        assert f"{field} is no folder here and not in this machine's Hub cache, and {why}" in line
    for each, field in zip(said[3:5], fields, strict=False):
        note, *more = [line for line in each[1].splitlines() if line.startswith("note: ")]
        assert each[0] == 0 and field in note and "12 texts of at most" in each[1]
        assert len(more) == (field == "model.id: me/base")  # without its tokenizer, prompts are not looked at
    assert not (place / "a").exists() and not (place / "m").exists()
    (line,) = mistakes(said[5])
    assert "--attributes E=me/e@v1/sub: me/e@v1/sub is no folder here" in line and why in line
