"""A data set that is done: no longer so, where its texts or scores would be others now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.job.load import load_job
from pipeline.run.done import is_done
from pipeline.run.run import run_job
from tests.fakes import tiny_adapter
from tests.tiny_job import PROMPTS, make_job, write_prompts


def test_what_has_changed_under_the_same_names_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = load_job(make_job(tmp_path, judges=[{"kind": "classifier"}]))
    assert not is_done(job)
    run_job(job)
    assert is_done(job)
    write_prompts(tmp_path, (*PROMPTS[:2], "in other words"))
    assert not is_done(load_job(tmp_path / "job.yaml"))
    write_prompts(tmp_path, PROMPTS)
    assert is_done(load_job(tmp_path / "job.yaml"))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.run.done.label_of", lambda judge: "classifier@3+another fit")
        assert not is_done(job)
    record = json.loads((tmp_path / "out" / "job.json").read_text())
    older = {
        name: value for name, value in record.items() if name not in ("gate", "interval")
    }  # before there were these
    (tmp_path / "out" / "job.json").write_text(json.dumps(older))
    assert is_done(job)
    (tmp_path / "out" / "job.json").write_text(json.dumps(record | {"max_rejected_fraction": 0.5}))
    assert not is_done(job)
    (tmp_path / "out" / "job.json").write_text(json.dumps(record))
    tiny_adapter(tmp_path / "base", tmp_path / "E", seed=7)  # trained again
    assert not is_done(load_job(tmp_path / "job.yaml"))
    (tmp_path / "out" / "run.json").write_text("{")
    assert not is_done(job)
