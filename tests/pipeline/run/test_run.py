"""The whole job on a tiny random Llama: real Beam, real Parquet, opened by `datasets`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.plan.errors import RunError
from pipeline.run.run import run_job
from pipeline.store.schema import GENERATIONS, JUDGMENTS, REJECTED
from tests.judge_server import JudgeServer, serving, status
from tests.tiny_job import checksums, rows, tiny_token, write_job, write_prompts


def test_a_job_becomes_a_data_set_that_datasets_opens(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datasets

    assert main(["run", str(job_file)]) == 0
    output = job_file.parent / "out"
    loaded = datasets.load_dataset(str(output), cache_dir=str(job_file.parent / "cache"))["train"]
    assert len(loaded) == 3 * 4
    assert set(loaded.column_names) == set(GENERATIONS.names)
    assert list(loaded["persona"][:4]) == ["reference", "E1.00", "E0.50+J0.50", "J1.00"]
    assert list(loaded["decoder"][:2]) == ["reference", "scr-exact"]
    judgments = datasets.load_dataset(str(output), "judgments", cache_dir=str(job_file.parent / "cache"))["train"]
    assert len(judgments) == 12 * 2
    assert {
        (s is None) == (status != "ok") for s, status in zip(judgments["score"], judgments["status"], strict=True)
    } == {True}
    for path in output.glob("*/*.parquet"):
        wanted = {"data": GENERATIONS, "judgments": JUDGMENTS, "rejected": REJECTED}[path.parent.name]
        assert pq.read_schema(path).equals(wanted, check_metadata=True)
    printed = capsys.readouterr().out
    assert "judged adherence" in printed and str(output) in printed and "E0.50+J0.50" in printed
    run = json.loads((output / "run.json").read_text())
    assert run["counts"]["rows"] == run["counts"]["planned"] == 12
    assert "configs:" in (output / "README.md").read_text()


def test_rows_are_the_same_for_one_and_two_workers_and_any_batch(job_file: Path) -> None:
    """In float32; two real worker processes of Beam's DirectRunner."""
    texts = []
    for name, overrides, beam in (
        ("one", ["batch_size=1", "rows_per_shard=7"], []),
        (
            "two",
            ["batch_size=8", "rows_per_shard=2"],
            ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
        ),
    ):
        output = job_file.parent / name
        run_job(load_job(job_file, [f"output={output}", "judges=[]", *overrides]), beam)
        texts.append([(row["row_id"], row["response"], row["n_chunks"]) for row in rows(output)])
    assert len(texts[0]) == 12
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_a_second_run_keeps_rows_and_adds_only_what_is_new(job_file: Path, dtype: str) -> None:
    write_job(job_file.parent, model={"id": "base", "dtype": dtype})
    first = run_job(load_job(job_file))
    before = {row["row_id"]: row for row in rows(first.folder)}
    again = run_job(load_job(job_file))
    assert again.run["counts"]["generated"] == 0
    assert again.run["counts"]["kept_from_earlier_runs"] == 12
    assert {row["row_id"]: row for row in rows(first.folder)} == before
    more = run_job(load_job(job_file, ["samples_per_cell=2"]))
    assert more.run["counts"]["generated"] == 12
    after = {row["row_id"]: row for row in rows(first.folder)}
    assert len(after) == 24 and all(after[i] == before[i] for i in before)
    assert len(rows(first.folder, "judgments")) == 48
    reseeded = run_job(load_job(job_file, ["seed=1"]))
    assert reseeded.run["counts"]["generated"] == 12
    assert {row["response"] for row in rows(reseeded.folder)} != {row["response"] for row in before.values()}


def test_a_broken_shard_is_set_aside_and_its_rows_made_again(job_file: Path) -> None:
    first = run_job(load_job(job_file))
    before = {row["row_id"]: row for row in rows(first.folder)}
    shard = sorted((first.folder / ".work" / "generations").glob("*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    again = run_job(load_job(job_file))
    assert 0 < again.run["counts"]["generated"] < 12
    assert {row["row_id"]: row for row in rows(first.folder)} == before
    assert shard.with_suffix(".corrupt").exists()


def test_a_prompt_that_is_too_long_goes_to_the_dead_letters_alone(job_file: Path) -> None:
    lines = (job_file.parent / "prompts.jsonl").read_text()
    (job_file.parent / "prompts.jsonl").write_text(lines + json.dumps({"id": "long", "prompt": "a" * 400}) + "\n")
    result = run_job(load_job(job_file, ["max_rejected_fraction=0.5"]))
    rejected = rows(result.folder, "rejected")
    assert [row["prompt_id"] for row in rejected] == ["long"] * 4
    assert {row["reason"] for row in rejected} == {"too_long"}
    assert "256" in rejected[0]["message"]
    assert len(rows(result.folder)) == 12
    with pytest.raises(RunError, match=r"4 of 16 rows were rejected, more than max_rejected_fraction 0\.1"):
        run_job(load_job(job_file))
    assert len(rows(result.folder)) == 12


def test_dead_letters_row_by_row(job_file: Path) -> None:
    """Empty, half a surrogate pair, too long, NaN: each goes with its reason, and its batch-mates' texts stay.

    Of the sum: of the product, one of these texts has a Z itself.
    """
    of_sum = ["decoder.aggregate=sum"]
    folder = job_file.parent
    weights = load_file(folder / "base" / "model.safetensors")
    weights["model.embed_tokens.weight"][tiny_token("Z")] = float("nan")  # a prompt with a Z makes the model emit NaN
    save_file(weights, folder / "base" / "model.safetensors", metadata={"format": "pt"})
    good = run_job(load_job(job_file, of_sum))
    write_prompts(folder, ("hello you", "  ", "what now?", "ha\ud83d", "so Z", "a" * 400, "tell me more", "Z"))
    bad = run_job(load_job(write_job(folder, max_rejected_fraction=0.7, output=str(folder / "bad")), of_sum))
    found = rows(bad.folder, "rejected")
    reasons = {(row["prompt_id"], row["reason"]) for row in found}
    assert len(found) == 5 * 4 and reasons == {
        ("p1", "empty_prompt"), ("p3", "encoding"), ("p4", "not_finite"), ("p5", "too_long"), ("p7", "not_finite")
    }  # fmt: skip
    (half,) = {row["prompt"][0]["content"] for row in found if row["reason"] == "encoding"}
    assert half == "ha\\ud83d"  # spelled out: Parquet holds no half pair
    texts = [[(row["prompt"], row["persona"], row["response"]) for row in rows(run.folder)] for run in (good, bad)]
    assert texts[0] == texts[1] and len(texts[0]) == 12
    assert bad.run["counts"]["rejected"] == 20
    again = run_job(load_job(write_job(folder, max_rejected_fraction=0.7, output=str(folder / "bad")), of_sum))
    assert again.run["counts"]["generated"] == 0 and rows(again.folder, "rejected") == found


def test_too_many_dead_letters_stop_a_run_before_its_end(job_file: Path) -> None:
    """Half of the prompts are too long; the other half is not decoded to its end."""
    long = tuple("a" * (300 + i) for i in range(50))
    write_prompts(job_file.parent, (*long, *(f"tell me {a} {b}" for a in "abcde" for b in "fghijklmno")))
    with pytest.raises(RunError, match="were rejected, more than max_rejected_fraction"):
        run_job(load_job(job_file, ["decoder.max_new_tokens=100", "rows_per_shard=50"]))
    assert len(rows(job_file.parent / "out")) < 200


@pytest.mark.parametrize("decoder", ["reference", "scr", "routing", "soup", "pad", "best-of-n", "sequence-rejection"])
def test_the_other_decoders_run_too(job_file: Path, decoder: str) -> None:
    result = run_job(load_job(job_file, [f"decoder.name={decoder}"]))
    written = rows(result.folder)
    if decoder == "reference":
        # Without weights the personas are one and the same text: it is written once.
        assert len(written) == 3
        assert {row["persona"] for row in written} == {"reference"}
        assert all(row["exact"] and row["acceptance_rate"] is None for row in written)
    else:
        steered = [row for row in written if row["decoder"] == decoder]
        assert len(steered) == 9
        assert {row["exact"] for row in steered} == {decoder not in ("scr", "best-of-n", "sequence-rejection")}


def test_a_job_file_error_is_one_line_and_status_2(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(job_file), "--set", "decoder.tempreature=1"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert str(job_file) in lines[0] and "decoder.tempreature" in lines[0] and "temperature" in lines[0]


def test_an_output_folder_of_something_else_is_refused(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job_file.parent / "out").mkdir()
    (job_file.parent / "out" / "thesis.txt").write_text("mine")
    assert main(["run", str(job_file)]) == 2
    assert "holds files of something else" in capsys.readouterr().err
    assert (job_file.parent / "out" / "thesis.txt").read_text() == "mine"


def test_an_adapter_for_another_model_is_one_line_before_any_model_is_loaded(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(job_file), "--set", "attributes=[E, J]"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "attributes[0].adapter: adapter" in lines[0] and "trained for another base model" in lines[0]


def test_check_counts_and_schema_prints(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(job_file)]) == 0
    assert "3 prompts x 4 personas x 1 samples" in capsys.readouterr().out
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["decoder"]
    assert main([]) == 2


def test_rows_do_not_depend_on_where_the_model_lies(job_file: Path) -> None:
    """Ids come from what the weights are, not from their path; no machine path stands in a row."""
    first = run_job(load_job(job_file, ["judges=[]"]))
    (job_file.parent / "deep").mkdir()
    for name, place in (("base", "deep/base"), ("E", "moved-E"), ("J", "moved-J")):
        (job_file.parent / name).rename(job_file.parent / place)
    moved = write_job(
        job_file.parent,
        model={"id": "deep/base", "dtype": "float32"},
        attributes=[{"name": "E", "adapter": "moved-E"}, {"name": "J", "adapter": "moved-J"}],
    )
    second = run_job(load_job(moved, ["judges=[]"]))
    assert second.run["counts"]["generated"] == 0
    assert str(job_file.parent) not in json.dumps(rows(first.folder)) + json.dumps(second.run)


def test_a_job_is_judged_by_a_panel_with_one_behind_an_endpoint(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both judges' rows are there; the table shows their panel; what the endpoint refused is asked again."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    refused = JudgeServer(lambda text, n: status(401))
    with serving(refused) as url:
        judges = [{"kind": "classifier"}, {"kind": "openai", "model": "m", "base_url": url}, {"kind": "log-ratio"}]
        assert main(["run", str(write_job(job_file.parent, judges=judges))]) == 5
    found = rows(job_file.parent / "out", "judgments")
    assert Counter(row["judge"].partition("@")[0] for row in found) == {"classifier": 24, "openai": 36, "log-ratio": 24}
    assert {row["status"] for row in found if row["judge"].startswith("openai")} == {"failed"}
    server = JudgeServer()
    with serving(server) as url:
        judges[1]["base_url"] = url
        job = write_job(job_file.parent, judges=judges, panel="median")
        assert main(["run", str(job)]) == 0
    assert sum(server.calls.values()) == 12 - sum(not row["response"].strip() for row in rows(job_file.parent / "out"))
    run = json.loads((job_file.parent / "out" / "run.json").read_text())
    (remote,) = run["calls"].values()
    assert remote["calls"] == sum(server.calls.values()) and remote["stopped"] is None
    assert run["counts"]["generated"] == 0
    everything = b"".join(path.read_bytes() for path in (job_file.parent / "out").rglob("*") if path.is_file())
    assert b"sk-secret" not in everything


def test_a_judge_without_its_key_stops_a_run_before_it_begins(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["run", str(write_job(job_file.parent, judges=[{"kind": "openai", "model": "m"}]))]) == 2
    assert "judges: openai: api_key_env: the environment has no OPENAI_API_KEY" in capsys.readouterr().err
    assert not list((job_file.parent / "out").rglob("*.parquet"))


def test_a_jobs_budget_ends_a_judge_behind_an_endpoint(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No call goes out that the rest of it could not pay; the run says so and is not complete."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = JudgeServer()
    with serving(server) as url:
        judge = {"kind": "openai", "model": "m", "base_url": url, "prompt_price": 1000.0, "in_flight": 1}
        assert main(["run", str(write_job(job_file.parent, judges=[judge], budget=1.5))]) == 3
        asked, said = sum(server.calls.values()), capsys.readouterr().err
        assert "stopped (budget of 1.5 spent; raise it with --budget); 12 of 12 rows are finished" in said
        assert f"goes on with {12 - asked} texts that wait for a judge" in said
        assert 0 < asked < 12 and len(rows(job_file.parent / "out" / "partial")) == 12
        assert not (job_file.parent / "out" / "run.json").exists()
        assert main(["run", str(write_job(job_file.parent, judges=[judge], budget=500.0))]) == 0
    assert sum(server.calls.values()) == 12  # none twice


def test_candidates_that_could_not_be_judged_are_not_taken_for_bad_ones(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    rule = {"min_score": 0.0, "rows_per_cell": 1, "max_candidates": 9}
    with serving(JudgeServer(lambda text, n: status(429))) as url:
        judge = {"kind": "openai", "model": "m", "base_url": url, "patience_s": 0.5}
        assert main(["run", str(write_job(job_file.parent, judges=[judge], accept=rule))]) == 75
    assert "stopped (the server refused all calls for 0.5 s)" in capsys.readouterr().err
    assert len(rows(job_file.parent / "out" / ".work", "generations")) == 12  # no more were drawn


@pytest.mark.long
def test_a_deadline_ends_a_judge_behind_an_endpoint(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One call at a time, a second each: twelve seconds of calls, and a deadline in the middle."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = JudgeServer(delay_s=1.0)
    with serving(server) as url:
        judge = {"kind": "openai", "model": "m", "base_url": url, "in_flight": 1}
        assert main(["run", str(write_job(job_file.parent, judges=[judge])), "--deadline", "6s"]) == 75
        assert "stopped (deadline 6s reached)" in capsys.readouterr().err
        first = sum(server.calls.values())
        assert 0 < first < 12 and len(rows(job_file.parent / "out" / "partial", "judgments")) == 3 * first
        assert main(["run", str(write_job(job_file.parent, judges=[judge | {"in_flight": 12}]))]) == 0
    assert sum(server.calls.values()) == 12


def test_a_work_folder_that_was_deleted_is_made_from_the_data_set(job_file: Path) -> None:
    first = run_job(load_job(job_file))
    before = checksums(first.folder)
    shutil.rmtree(first.folder / ".work")
    again = run_job(load_job(job_file))
    assert again.run["counts"]["generated"] == 0 and checksums(first.folder) == before


@pytest.mark.parametrize("table", ["data", "judgments"])
def test_a_data_set_that_was_edited_is_not_taken_for_what_was_written(job_file: Path, table: str) -> None:
    """Without its work folder its own files are the first shards: those that its manifest knows, as it knows them."""
    first = run_job(load_job(job_file))
    before = checksums(first.folder)
    (path,) = (first.folder / table).glob("*.parquet")
    edited = pq.read_table(path).to_pylist()
    edited[0]["response" if table == "data" else "rationale"] = "not what was written"
    schema = {"data": GENERATIONS, "judgments": JUDGMENTS}[table]
    pq.write_table(pa.Table.from_pylist(edited, schema=schema), path)
    shutil.rmtree(first.folder / ".work")
    run_job(load_job(job_file))
    assert checksums(first.folder) == before
    assert list((first.folder / ".work").glob("*/*.corrupt"))  # set aside, never deleted


def test_rows_that_are_written_anew_are_judged_anew(job_file: Path) -> None:
    first = run_job(load_job(job_file))
    before = checksums(first.folder)
    shard = sorted((first.folder / ".work" / "generations").glob("*.parquet"))[0]
    shard.write_bytes(b"")
    again = run_job(load_job(job_file))
    assert again.run["counts"]["generated"] in (2, 5) and checksums(first.folder) == before
    stale = list((first.folder / ".work" / "judgments").glob("*.stale"))
    assert sum(pq.read_table(path).num_rows for path in stale) == 2 * again.run["counts"]["generated"]


def test_ticks_of_a_killed_run_are_not_counted_again(job_file: Path) -> None:
    write_prompts(job_file.parent, (*(f"tell me {a}" for a in "abcdefghij"), " "))
    job = load_job(job_file)
    assert run_job(job).run["counts"]["rejected"] == 4  # of 44: one more would be too many
    progress = job_file.parent / "out" / ".work" / "progress" / "rejected"
    for _ in range(8):  # whoever looks first
        progress.mkdir(parents=True)
        (progress / "1-1").write_bytes(b"....")
        assert run_job(load_job(job_file)).run["counts"]["rejected"] == 4
        assert not progress.exists()


def test_a_model_without_a_chat_template_is_one_line(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (job_file.parent / "base").glob("*"):
        if file.name == "chat_template.jinja":
            file.unlink()
        elif file.name == "tokenizer_config.json":
            file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "chat_template"}))
    for command in ("run", "plan", "questionnaire"):
        assert main([command, str(job_file)]) in (1, 2)
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and "has no chat template; use an instruction-tuned model" in lines[0]


def test_role_play_through_the_whole_job(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model reads its own prompt; rows say what the persona is and what the reference was told."""
    people = [
        {"weights": {"E": 0.5, "J": 0.5}, "profile": {"age": 36, "gender": "woman"}, "personality": "Calm."},
        {"name": "other", "weights": {"J": 1}, "profile": "He bakes."},
    ]
    job = write_job(
        job_file.parent,
        model={"id": "base", "dtype": "float32", "system": "Be {profile}"},
        attributes=[
            {"name": "E", "adapter": "E", "system": "P {profile} {personality}"},
            {"name": "J", "adapter": "J"},
        ],
        personas={"kind": "explicit", "control": True, "weights": people},
    )
    assert main(["run", str(job)]) == 0
    found = rows(job_file.parent / "out")
    assert [row["system"] for row in found[:3]] == [None, "Be She is a 36-year-old woman.", "Be He bakes."]
    assert found[1]["personality"] == "Calm." and found[0]["profile"] is None
    assert all(row["prompt"][0]["role"] == "user" for row in found)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(JudgeServer()) as url:
        assert (
            main(["judge", str(job_file.parent / "out"), "--judge", "openai", "--model", "m", "--base-url", url]) == 0
        )
    assert "naturalness" not in {
        row["attribute"] for row in rows(job_file.parent / "out", "judgments")
    }  # no role-play one
    bank_row = found[1]
    assert main(["run", str(job), "--set", "personas.weights.0.personality=Loud."]) == 0
    changed = rows(job_file.parent / "out")
    assert changed[0] == found[0] and changed[2] == found[2]  # kept
    assert changed[1]["row_id"] != bank_row["row_id"]


def test_naturalness_is_judged_with_role_play(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(JudgeServer()) as url:
        job = write_job(
            job_file.parent,
            attributes=[{"name": "profile", "adapter": "E"}],
            personas={
                "kind": "explicit",
                "weights": [{"weights": {"profile": 1}, "profile": "A baker.", "personality": "Calm."}],
            },
            judges=[{"kind": "openai", "model": "m", "base_url": url}],
        )
        assert main(["run", str(job)]) == 0
    found = Counter(row["attribute"] for row in rows(job_file.parent / "out", "judgments"))
    assert found == {"profile": 3, "naturalness": 3, "fluency": 3}
