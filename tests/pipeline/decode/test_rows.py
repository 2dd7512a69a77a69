"""Rows with their tokens: what `decoder.token_log_ratios` adds to a data set, and what it leaves as it is."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpg.settings import JOB_DECODERS
from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from pipeline.run.run import run_job
from pipeline.store.manifest import write_manifest
from pipeline.store.schema import GENERATIONS
from tests.fakes import spelling_llama, tiny_adapter
from tests.tiny_job import make_job, rows, write_job, write_prompts

ADDED = ("tokens", "token_log_ratios")
ON = "decoder.token_log_ratios=true"


def run(job_file: Path, *changes: str) -> list[dict[str, Any]]:
    job = load_job(job_file, list(changes))
    run_job(job)
    return rows(job.output_folder)


def without(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ADDED} for row in found]


def check(row: dict[str, Any]) -> None:
    assert "".join(row["tokens"]) == row["response"] and len(row["tokens"]) == row["n_tokens"]
    assert [len(terms) for terms in row["token_log_ratios"]] == [row["n_tokens"]] * len(row["attributes"])
    assert [sum(terms) for terms in row["token_log_ratios"]] == pytest.approx(row["log_ratios"], abs=1e-4)
    if row["finish_reason"] == "stop":
        assert row["tokens"][-1] == ""


@pytest.mark.parametrize("name", JOB_DECODERS)
def test_nothing_else_of_a_row_changes(job_file: Path, name: str) -> None:
    """Ids, seeds, texts, hashes and measured columns are those of the job without it; the control has its pieces."""
    one_hot = "personas={kind: one-hot, control: true}" if name == "reference" else "personas.steps=2"
    changes = (f"decoder.name={name}", "judges=[]", "prompts.limit=2", one_hot)
    before = run(job_file, *changes)
    after = run(job_file, *changes, ON, f"output={job_file.parent / 'told'}")
    assert without(after) == without(before) and all(row[each] is None for row in before for each in ADDED)
    for row in after:
        check(row)
    assert {row["persona"] for row in after} >= {"reference"}
    schema = pq.read_schema(next((job_file.parent / "told" / "data").glob("*.parquet")))
    assert schema.names[-2:] == list(ADDED) and schema.field("token_log_ratios").type == pa.list_(
        pa.field("element", pa.list_(pa.field("element", pa.float32())))
    )


def test_it_is_no_part_of_a_rows_identity(job_file: Path) -> None:
    cells = {on: Plan.of(load_job(job_file, [f"decoder.token_log_ratios={on}"])).cells() for on in ("true", "false")}
    known = [[(c.row_id, c.seed, c.config_hash) for c in found] for found in cells.values()]
    assert known[0] == known[1]
    assert {c.decoder.token_log_ratios for c in cells["true"]} == {True}  # the control's, too
    assert {c.decoder.token_log_ratios for c in cells["false"]} == {False}


def test_texts_of_bytes_join_from_their_pieces(tmp_path: Path) -> None:
    """A model that draws bytes at random: halves of characters, control tokens, blanks at either end."""
    base = spelling_llama(tmp_path / "base")
    for seed, name in enumerate("EJ", start=1):
        tiny_adapter(base, tmp_path / name, seed=seed)
    write_prompts(tmp_path, ("日本", "👍🏽", "é"))
    decoder = {"name": "scr-exact", "max_new_tokens": 40, "token_log_ratios": True}
    found = run(write_job(tmp_path, decoder=decoder, judges=[], samples_per_cell=4))
    assert len(found) == 48 and any("" in row["tokens"][:-1] for row in found)
    for row in found:
        check(row)


def test_a_text_that_utf_8_cant_hold_joins_from_its_pieces(job_file: Path) -> None:
    """Half a surrogate pair is spelled out in the text and in the piece alike."""
    from pipeline.store.shards import read_shards, write_rows

    (row, *_) = run(job_file, ON, "judges=[]", "prompts.limit=1")
    row |= {"response": "a\ud83d\ude00b\udc00", "tokens": ["a", "\ud83d", "\ude00b", "\udc00"]}
    folder = job_file.parent / "shards"
    folder.mkdir()
    write_rows([row], "generations", folder / "a.parquet")
    (kept,) = read_shards(folder, "generations").to_pylist()
    assert "".join(kept["tokens"]) == kept["response"] == r"a\ud83d\ude00b\udc00"


# --------------------------------------------------------------------------- switched on later


def test_rows_that_are_there_stay_without_and_that_is_said(job_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    before = run(job_file, "prompts.limit=1")
    assert not [r for r in caplog.records if "token_log_ratios" in r.message]
    after = run(job_file, ON, "prompts.limit=2")
    (said,) = [r.message for r in caplog.records if "token_log_ratios" in r.message]
    assert said.startswith("decoder.token_log_ratios: 4 of these rows were written without") and "--output" in said
    assert after[:4] == before and len(after) == 8
    for row in after[4:]:
        check(row)
    caplog.clear()
    assert run(job_file, ON, "prompts.limit=2") == after  # nothing is made anew
    assert run(job_file, "prompts.limit=2") == after  # nor lost, where it is switched off
    assert len([r for r in caplog.records if "token_log_ratios" in r.message]) == 1
    caplog.clear()
    anew = run(job_file, ON, "prompts.limit=2", f"output={job_file.parent / 'anew'}")
    assert [(row["row_id"], row["response"]) for row in anew] == [(row["row_id"], row["response"]) for row in after]
    assert [row["tokens"] for row in anew[4:]] == [row["tokens"] for row in after[4:]]
    assert not [r for r in caplog.records if "token_log_ratios" in r.message]


def test_the_terms_follow_the_order_of_the_attributes(job_file: Path) -> None:
    before = run(job_file, ON, "prompts.limit=1")
    turned = "attributes=[{name: J, adapter: J}, {name: E, adapter: E}]"
    after = run(job_file, ON, "prompts.limit=1", turned)
    by_name = [{r["row_id"]: dict(zip(r["attributes"], r["token_log_ratios"], strict=True)) for r in found}
               for found in (before, after)]  # fmt: skip
    assert by_name[0] == by_name[1]
    assert [r["attributes"] for r in after if len(r["attributes"]) > 1] == [["J", "E"]]
    without_them = job_file.parent / "without"
    run(job_file, f"output={without_them}", "prompts.limit=1")
    assert len(run(job_file, f"output={without_them}", "prompts.limit=1", turned)) == len(before)


# --------------------------------------------------------------------------- verified


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    job_file = make_job(folder)
    run(job_file, "judges=[]", "prompts.limit=1")
    run(job_file, ON, "judges=[]", "prompts.limit=3")
    return folder / "out"


def first_term(row: dict[str, Any], value: float) -> None:
    if row["token_log_ratios"]:
        row["token_log_ratios"][0][0] += value


def nothing(row: dict[str, Any]) -> None:
    return None


def other_pieces(row: dict[str, Any]) -> None:
    if row["tokens"] is not None:
        row["tokens"] = [row["response"]] + [""] * (row["n_tokens"] - 1)


def one_term_less(row: dict[str, Any]) -> None:
    if row["token_log_ratios"]:
        row["token_log_ratios"][0].pop()


@pytest.mark.parametrize("job_says", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nothing, "measured columns: 12 of 12 came out the same"),
        (lambda row: first_term(row, 1e-5), "measured columns: 12 of 12 came out the same"),
        (lambda row: first_term(row, 0.01), "token_log_ratios[0][0] was"),
        (other_pieces, "tokens were"),
        (one_term_less, "token_log_ratios were ["),
    ],
)
def test_they_are_compared_where_they_are_there(
    written: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    words: str,
    job_says: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Path(shutil.copytree(written, tmp_path / "out"))
    found = rows(output)
    for row in found:
        change(row)
    (file,) = (output / "data").glob("*.parquet")
    pq.write_table(pa.Table.from_pylist(found, schema=GENERATIONS), file)
    told = {"file": file.name, "rows": len(found), "bytes": file.stat().st_size}
    write_manifest(output, {"data": [told | {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}]})
    job = json.loads((output / "job.json").read_text())
    job["decoder"]["token_log_ratios"] = job_says
    (output / "job.json").write_text(json.dumps(job))
    status = main(["verify", str(output), "--sample", "20"])
    printed = capsys.readouterr().out
    assert words in printed and (status == 0) == ("12 of 12 came out the same" in words)
