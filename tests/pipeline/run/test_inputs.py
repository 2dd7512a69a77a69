"""A whole job over prompts as people have them: broken rows, metadata, chats, a data set of this project's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.run.run import run_job
from tests.tiny_job import make_job, rows, write_job

PERSONAS = {"kind": "one-hot"}


def test_broken_rows_and_metadata_reach_the_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_job(tmp_path)
    lines = [json.dumps({"prompt": f"tell me {i}", "id": f"p{i}", "category": "ab"[i % 2], "n": i}) for i in range(20)]
    lines[3:3] = ['{"prompt": null, "id": "x"}', "not JSON", lines[0]]
    lines.append(json.dumps({"prompt": " ", "id": "blank"}))
    lines.insert(0, lines.pop())
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    job = write_job(
        tmp_path, personas=PERSONAS, prompts={"file": "prompts.jsonl", "limit": 5}, max_rejected_fraction=0.4
    )
    assert main(["check", str(job)]) == 0
    printed = capsys.readouterr()
    assert "5 prompts x 2 personas" in printed.out
    result = run_job(load_job(job))
    assert result.run["counts"] | {"rows": 8, "rejected": 2, "broken_prompts": 2} == result.run["counts"]
    data = rows(result.folder)
    assert [(row["prompt_id"], row["metadata_category"], row["metadata_n"]) for row in data[::2]] == [
        ("p0", "a", 0), ("p1", "b", 1), ("p2", "a", 2), ("p3", "b", 3),
    ]  # fmt: skip
    dead = rows(result.folder, "rejected")
    assert [(row["source"], row["reason"], row["row_id"]) for row in dead] == [
        (None, "empty_prompt", dead[0]["row_id"]),
        (None, "empty_prompt", dead[1]["row_id"]),
        ("prompts.jsonl: line 5", "bad_prompt", None),
        ("prompts.jsonl: line 6", "broken_row", None),
    ]
    assert dead[3]["raw"] == "not JSON" and "not JSON" in dead[3]["message"]
    opened = datasets.load_dataset(str(result.folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert opened["metadata_category"][:3] == ["a", "a", "b"]
    ids = [row["row_id"] for row in data]
    # What the source says now, and the same rows; without a work folder, too.
    changed = "\n".join(lines[:4] + lines[7:]).replace('"category": "a"', '"kind": 1').replace("blank", "white")
    (tmp_path / "prompts.jsonl").write_text(changed)
    shutil.rmtree(result.folder / ".work")
    again = run_job(load_job(job))
    assert again.run["counts"]["generated"] == 0
    assert [(row["prompt_id"], row["source"]) for row in rows(again.folder, "rejected")] == [("white", None)] * 2
    assert [row["row_id"] for row in rows(again.folder)] == ids
    assert [row["metadata_category"] for row in rows(again.folder)[:4]] == [None, None, "b", "b"]
    assert [row["metadata_kind"] for row in rows(again.folder)[:4]] == [1, 1, None, None]


def test_too_many_broken_rows_end_the_job_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_job(tmp_path)
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write("nope\n")
    assert main(["check", str(write_job(tmp_path))]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert "line 4: not JSON" in line
    assert "1 of 4 rows can't be used, more than max_rejected_fraction 0.1 allows" in line
    assert main(["check", str(write_job(tmp_path, max_rejected_fraction=0.5))]) == 0


def test_a_data_set_of_this_project_is_a_source_of_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job(tmp_path, personas=PERSONAS)
    folder = run_job(load_job(job)).folder.rename(tmp_path / "a*[1]")
    other = write_job(tmp_path, prompts={"dataset": "a*[1]"}, personas=PERSONAS, output=str(tmp_path / "out2"))
    assert main(["check", str(other)]) == 0
    assert "a*[1]: 3 rows repeat an earlier prompt and are left out; the first: row 2" in caplog.text
    loaded = load_job(other)
    assert [row["prompt"] for row in rows(folder)[::2]] == [prompt.as_chat() for prompt in loaded.load_prompts()]
    data = rows(run_job(loaded).folder)
    assert len(data) == 6 and data[0]["metadata_persona"] == "E1.00"
