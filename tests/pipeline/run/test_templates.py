"""Other models' chat templates in a job: what is said before a model is loaded, what a row's identity knows of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mpg import ModelBank, Request, decode
from mpg.models.chat import answer_start
from mpg.settings import DEFAULT_DATE, DecoderSettings
from pipeline.cli import main
from pipeline.decode.requests import RejectedCell, encode
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.plan.errors import RunError
from pipeline.plan.plan import Plan
from pipeline.run.preflight import preflight
from pipeline.run.run import run_job
from tests.fakes import spelling_tokenizer, tiny_adapter
from tests.templates import KINDS, save_tokenizer, templated_llama
from tests.tiny_job import rows, write_job, write_prompts

OFF = "model.template_arguments={enable_thinking: false}"


def job_of(place: Path, kind: str, *, prompts: tuple[str, ...] = ("hello you", "what now?"), **changes: Any) -> Path:
    """A job of one adapter over a tiny model with such a template."""
    base = templated_llama(place / "base", kind, **changes)
    tiny_adapter(base, place / "E", seed=1)
    write_prompts(place, prompts)
    return write_job(
        place, attributes=[{"name": "E", "adapter": "E"}], personas={"kind": "one-hot"}, judges=[],
        decoder={"name": "scr-exact", "max_new_tokens": 6, "chunk_len": 4},
    )  # fmt: skip


def ids(job: Path, *overrides: str) -> list[str]:
    return [cell.row_id for cell in Plan.of(load_job(job, overrides)).cells()]


def looked(job: Path, *overrides: str) -> Any:
    loaded = load_job(job, overrides)
    return preflight(loaded, loaded.load_prompts())


def own_chats(place: Path, *chats: list[tuple[str, str]]) -> None:
    """Prompts that are chats."""
    lines = ({"id": f"p{i}", "prompt": [{"role": r, "content": c} for r, c in chat]} for i, chat in enumerate(chats))
    (place / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_through_a_whole_job(kind: str, tmp_path: Path) -> None:
    job, overrides = job_of(tmp_path, kind), [OFF] if kind in ("qwen3", "smollm3") else []
    found = looked(job, *overrides)
    assert found.problems == () and found.unknown == ()
    done = run_job(load_job(job, overrides)).run["counts"]
    assert (done["rows"], done["rejected"]) == (2, 0)
    assert {row["row_id"] for row in rows(tmp_path / "out")} == set(ids(job, *overrides))


# --------------------------------------------------------------------------- identity


def test_identity_knows_what_the_template_is_told_and_nothing_that_changes_no_chat(tmp_path: Path) -> None:
    job = job_of(tmp_path, "qwen3", eos_ids=2)
    bare = ids(job)
    assert ids(job, OFF) != bare and ids(job, OFF) == ids(job, "model.template_arguments.enable_thinking=false")
    assert ids(job, "model.date=2025-03-09") == bare  # the template asks for no date
    assert ids(job, "model.system_role=fold") == bare  # there is no system message
    told = ids(job, "model.system=be brief")
    assert ids(job, "model.system=be brief", "model.system_role=fold") != told != bare


def test_identity_knows_the_day_of_the_rows_that_read_it(tmp_path: Path) -> None:
    job = job_of(tmp_path, "granite")
    own_chats(tmp_path, [("user", "hi")], [("system", "be brief"), ("user", "hi")])
    first, second, default = (ids(job, *more) for more in (["model.date=2025-03-09"], ["model.date=2025-03-10"], []))
    assert first[0] != second[0] and first[1] == second[1] == default[1]  # with a system message no date is written
    assert ids(job, f"model.date={DEFAULT_DATE}") == default
    notes = "\n".join(looked(job).notes)
    assert (
        f"model.date: not set, and the chat template asks for today's date in 1 of 2 texts: all read {DEFAULT_DATE}"
        in notes
    )
    assert "model.date" not in "\n".join(looked(job, "model.date=2025-03-09").notes)


def test_a_date_that_nobody_reads_is_worth_a_word(tmp_path: Path) -> None:
    assert "model.date: 2025-03-09: the chat template asks for no date" in "\n".join(
        looked(job_of(tmp_path, "gemma"), "model.date=2025-03-09").notes
    )


def test_identity_knows_ends_that_generation_config_does_not_name(tmp_path: Path) -> None:
    """They end texts now that ran on before: rows of before are others."""
    job = job_of(tmp_path, "phi3")
    plan = Plan.of(load_job(job))
    names = plan.tokenizer.convert_ids_to_tokens(sorted(plan.ends.ids))
    assert names == ["<|endoftext|>", "<|end|>"]
    short = ids(job)
    config = tmp_path / "base" / "generation_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"eos_token_id": sorted(plan.ends.ids)}))
    assert Plan.of(load_job(job)).ends.ids == plan.ends.ids and ids(job) != short
    (note,) = [each for each in looked(job).notes if "model.id" in each] or [""]
    assert note == ""
    config.write_text(json.dumps(values))
    (note,) = looked(job).notes
    assert note == (
        "model.id: texts end at '<|end|>' too, with which its chat template closes an answer (in all: "
        "'<|endoftext|>', '<|end|>')"
    )


def test_a_text_ends_where_the_template_closes_a_turn(tmp_path: Path) -> None:
    """A model that says nothing but the template's end, which its files name nowhere: its texts ran on."""
    import torch
    from safetensors.torch import load_file, save_file

    job = job_of(tmp_path, "phi3")
    end = Plan.of(load_job(job)).tokenizer.convert_tokens_to_ids("<|end|>")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["model.embed_tokens.weight"].fill_(1.0)
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            weight.zero_()
    weights["lm_head.weight"][end] = torch.ones(32)
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    run_job(load_job(job, ["attributes=[{name: E, adapter: E}]", "decoder.name=reference"]))
    written = {(row["finish_reason"], row["n_tokens"], row["response"]) for row in rows(tmp_path / "out")}
    assert written == {("stop", 1, "")}


@pytest.mark.parametrize(
    ("template", "eos", "says"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}", [0], None),  # the files say enough
        ("{% for m in messages %}{{ m.content }}###{% endfor %}", [0], "closes an answer with '###', no control token"),
        ("{% for m in messages %}{{ m.content }}{{ raise_exception('so') if m.role == 'assistant' }}{% endfor %}", [0],
         "in a way that is unknown: TemplateError: so"),
        ("{% for m in messages %}{{ m.content }} {% endfor %}", None, "closes an answer with nothing"),
    ],
)  # fmt: skip
def test_an_end_that_the_template_does_not_show_is_said(
    template: str, eos: list[int] | None, says: str | None, tmp_path: Path
) -> None:
    job = job_of(tmp_path, "gemma", template=template, eos_ids=eos or [0])
    if eos is None:
        (tmp_path / "base" / "generation_config.json").unlink()
    notes = looked(job).notes
    assert [says in note and "if texts run on, add the token to eos_token_id" in note for note in notes if says] == (
        [True] if says else []
    )
    assert len(notes) == (says is not None)


# --------------------------------------------------------------------------- what a template does not take


@pytest.mark.parametrize("kind", ["gemma", "mistral-silent"])
@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_a_system_message_that_the_template_does_not_take_is_one_line_before_anything(
    kind: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(tmp_path, kind)
    how = ["--set", "model.system=be brief"]
    assert main([command, str(job), *how]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "model.system_role: template: the chat template " in said and said.endswith("; set fold")
    assert main(["check", str(job), *how, "--set", "model.system_role=fold"]) == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "overrides", [["decoder.name=prompting"], ['attributes=[{name: E, adapter: E, system: "be brief"}]']]
)
def test_whoever_it_is_for(overrides: list[str], tmp_path: Path) -> None:
    job = job_of(tmp_path, "gemma")
    (problem,) = looked(job, *overrides).problems
    assert problem.endswith("; set fold")
    assert looked(job, *overrides, "model.system_role=fold").problems == ()


@pytest.mark.parametrize("kind", ["gemma", "mistral-silent"])
def test_rows_with_a_system_message_of_their_own_are_rejected_and_no_others(kind: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, kind)
    own_chats(tmp_path, [("user", "hi")], [("system", "be brief"), ("user", "hi")], [("user", "a"), ("user", "b")])
    (problem,) = looked(job).problems
    assert "system_role: prompt 'p1'" in problem and "set model.system_role: fold" in problem
    done = run_job(load_job(job, ["max_rejected_fraction=1"]))
    reasons = {row["prompt_id"]: row["reason"] for row in rows(tmp_path / "out", "rejected")}
    assert reasons == {"p1": "system_role"} | ({"p2": "encoding"} if kind == "gemma" else {})
    assert done.run["counts"]["rows"] == 3 - len(reasons)
    plan = Plan.of(load_job(job, ["model.system_role=fold"]))
    text = plan.tokenizer.decode(encode(plan, plan.cells()[1]).reference)
    assert "be brief\n\nhi" in text


@pytest.mark.parametrize("command", ["check", "run", "questionnaire"])
@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('never') }}", "model.id: its chat template refuses every chat (TemplateError: never)"),
        ("{{ messages[0].content }}{{ [1, 2] | random }}", "model.id: its chat template draws at random"),
    ],
)
def test_a_template_that_takes_no_chat_is_one_line(
    command: str, template: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(tmp_path, "gemma", template=template)
    assert main([command, str(job)]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert says in said


@pytest.mark.parametrize(
    ("kind", "template", "overrides", "says"),
    [
        ("qwen3", {"arguments": {"enable_thinking": False}}, [], 'model.template_arguments {"enable_thinking": false}'),
        ("qwen3", {"arguments": {"enable_thinking": False}}, [OFF], None),
        ("qwen3", {}, [OFF], "model.template_arguments {}, here"),
        ("smollm3", {"date": "2025-03-09"}, [], f"model.date 2025-03-09, here {DEFAULT_DATE}"),
        ("smollm3", {"date": DEFAULT_DATE}, [], None),
        ("smollm3", {"date": DEFAULT_DATE}, [f"model.date={DEFAULT_DATE}"], None),
        ("qwen3", {"date": "2025-03-09"}, [], None),  # the template asks for no date
        ("qwen3", {"system_role": "fold"}, ["model.system=be brief"], "model.system_role fold, here template"),
        ("qwen3", {"system_role": "fold"}, ["model.system=be brief", "model.system_role=fold"], None),
        ("qwen3", {"system_role": "fold"}, [], None),  # there is no system message
    ],
)
def test_an_adapter_that_was_trained_on_other_chats_is_worth_a_word(
    tmp_path: Path, kind: str, template: dict[str, Any], overrides: list[str], says: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    job = job_of(tmp_path, kind)
    assert not any("was trained" in note for note in looked(job, *overrides).notes)  # nobody says how it was
    card = {"name": "E", "recipe": {}} | ({"template": template} if template else {})
    (tmp_path / "E" / "card.json").write_text(json.dumps(card))
    found = looked(job, *overrides)
    notes = [note for note in found.notes if "was trained" in note]
    assert found.problems == () and len(notes) == (says is not None)
    if says is None:
        return
    assert notes[0].startswith(f"attributes[0].adapter: E was trained with {says}") and "; set model." in notes[0]
    assert main(["check", str(job), *(f"--set={each}" for each in overrides)]) == 0
    assert f"note: {notes[0]}" in capsys.readouterr().out


def test_an_adapter_that_is_on_from_the_answer_is_refused_where_answers_begin_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chats of several turns hold what it waits for in an earlier one: it would be on from there, without a word."""
    job = job_of(tmp_path, "qwen3")
    own_chats(tmp_path, [("user", "hi"), ("assistant", "you"), ("user", "what?")])
    start = answer_start(AutoTokenizer.from_pretrained(tmp_path / "base"))
    config = tmp_path / "E" / "adapter_config.json"
    own, other = {"recipe": {"from_answer": True}}, start[::-1]
    for tokens, card, overrides, refused in (
        (start, own, [], False),
        (start, own, [OFF], False),  # which adds to what an answer begins after
        (other, own, [], True),
        (other, {"recipe": {}}, [], False),  # a foreign aLoRA is on from wherever it says
    ):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"alora_invocation_tokens": tokens}))
        (tmp_path / "E" / "card.json").write_text(json.dumps({"name": "E"} | card))
        problems = [each for each in looked(job, *overrides).problems if "is on from where" in each]
        assert bool(problems) == refused, problems
        if refused:
            assert problems[0].startswith(
                "attributes[0].adapter: it is on from where an answer begins, in its training"
            )
            assert main(["run", str(job)]) == 2 and problems[0] in capsys.readouterr().err
            with pytest.raises(RunError, match="is on from where"):  # whoever asks for the job's rows
                run_job(load_job(job))
            assert not list((tmp_path / "out").rglob("*.parquet"))
            (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3)
            command = ["infer-weights", str(tmp_path / "pairs.jsonl"), "--model", str(tmp_path / "base")]
            assert main([*command, "--attributes", f"E={tmp_path / 'E'}", "--output", str(tmp_path / "p.yaml")]) == 2
            assert "--attributes E: it is on from where" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "model.template_arguments={enable_thinkin: false}",
            "model.template_arguments.enable_thinkin: the chat template",
        ),
        ("model.template_arguments={tools: []}", "model.template_arguments.tools: is not the job's to give"),
    ],
)
def test_arguments_that_the_template_does_not_take(override: str, says: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, "qwen3")
    with pytest.raises(RunError, match=says):
        Plan.of(load_job(job, [override]))
    (problem,) = looked(job, override).problems
    assert problem.startswith(says)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.date=2025-02-30", "model.date: "),
        ("model.date=today", "model.date"),
        ("model.system_role=folded", "model.system_role"),
        ("model.template_arguments=[1]", "model.template_arguments"),
        ("model.template_arguments={a: .inf}", "model.template_arguments"),
    ],
)
def test_fields_that_can_not_be_read(override: str, says: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, "qwen3")
    with pytest.raises(JobError) as error:
        load_job(job, [override])
    assert len(error.value.lines) == 1 and says in error.value.lines[0]


def test_a_job_with_arguments_is_immutable_recorded_and_runs_again(tmp_path: Path) -> None:
    job = job_of(tmp_path, "qwen3")
    loaded = load_job(job, ["model.template_arguments={enable_thinking: false, more: {a: [1, null]}}"])
    assert isinstance(hash(loaded), int)
    with pytest.raises(TypeError):
        loaded.model.template_arguments["enable_thinking"] = True  # type: ignore[index]
    run_job(load_job(job, [OFF]))
    again = load_job(tmp_path / "out" / "job.json")
    assert dict(again.model.template_arguments) == {"enable_thinking": False}
    assert main(["verify", str(tmp_path / "out"), "--sample", "2"]) == 0


# --------------------------------------------------------------------------- tokens beyond the embeddings


def test_a_token_that_the_model_was_never_resized_for_costs_its_own_rows(tmp_path: Path) -> None:
    prompts = ("hello you", "an unheardword of", "what now?")
    job = job_of(tmp_path, "mistral", prompts=prompts)
    tokenizer = save_tokenizer("mistral", tmp_path / "base")
    n = len(tokenizer)
    tokenizer.add_tokens(["unheardword"])
    tokenizer.save_pretrained(tmp_path / "base")
    (problem,) = looked(job).problems
    assert f"no_embedding: prompt 'p1': token {n}, and the model has embeddings for 0 to {n - 1}" in problem
    done = run_job(load_job(job, ["max_rejected_fraction=0.5"]))
    (rejected,) = rows(tmp_path / "out", "rejected")
    assert (rejected["prompt_id"], rejected["reason"]) == ("p1", "no_embedding") and "unheardword" in rejected[
        "message"
    ]
    assert done.run["counts"]["rows"] == 2
    bank = ModelBank.load(str(tmp_path / "base"), {})
    for request in (Request([1, n], {}, 0), Request([1], {}, 0, {"E": [-1]})):
        with pytest.raises(ValueError, match=r"request 0: prompt.*embeddings for 0 to"):
            list(decode(bank, [request], DecoderSettings(name="reference")))


def test_a_template_that_writes_such_a_token_takes_every_row(tmp_path: Path) -> None:
    job = job_of(tmp_path, "phi3", n_embeddings=600)
    (problem,) = looked(job).problems
    assert problem.startswith("model.id: its chat template writes '<|user|>', token 601, and the model has embeddings")


def test_a_cell_says_why_it_has_no_request(tmp_path: Path) -> None:
    plan = Plan.of(load_job(job_of(tmp_path, "gemma")))
    (cell, _) = plan.cells()
    assert encode(plan, cell).reference
    last = spelling_tokenizer(template="{{ messages[-1].content }}")
    object.__setattr__(plan, "tokenizer", last)
    object.__setattr__(cell, "messages", (("user", "a"), ("assistant", "b"), ("user", "c")))
    with pytest.raises(RejectedCell, match="leaves out a turn of the user in silence") as error:
        encode(plan, cell)
    assert error.value.reason == "template"


# --------------------------------------------------------------------------- files that change under a data set


@pytest.mark.parametrize("part", ["chat template", "tokenizer", "end tokens"])
def test_a_data_set_is_not_gone_on_with_by_another_template(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same weights in the same folder: its rows would have the ids of those that are there."""
    job, base = job_of(tmp_path, "mistral"), tmp_path / "base"
    run_job(load_job(job))
    before, known = rows(tmp_path / "out"), ids(job)
    assert run_job(load_job(job)).run["counts"]["generated"] == 0
    tokenizer = AutoTokenizer.from_pretrained(base)
    if part == "chat template":
        tokenizer.chat_template = "Be good. " + tokenizer.chat_template
        tokenizer.save_pretrained(base)
    elif part == "tokenizer":
        tokenizer.add_tokens(["hello you"])
        tokenizer.save_pretrained(base)
    else:  # both name the tokenizer's own: what generation_config names beside it, no identity knows
        (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, tokenizer.eos_token_id]}))
    assert ids(job) == known
    says = f"model.id: the {part} in {base} changed since rows of {tmp_path / 'out'} were written; bring"
    (problem,) = looked(job, "max_rejected_fraction=1").problems
    assert problem.startswith(says)
    assert main(["run", str(job)]) == 2 and says in capsys.readouterr().err
    with pytest.raises(RunError, match="bring the earlier files back, or give another output"):
        run_job(load_job(job))
    assert rows(tmp_path / "out") == before
    counts = run_job(load_job(job, [f"output={tmp_path / 'new'}", "max_rejected_fraction=1"])).run["counts"]
    assert counts["rows"] + counts["rejected"] == 2


def test_a_data_set_that_noted_nothing_is_gone_on_with(tmp_path: Path) -> None:
    """As those of earlier versions; another model in the same output is another matter, too."""
    job, base = job_of(tmp_path, "mistral"), tmp_path / "base"
    run_job(load_job(job))
    note = tmp_path / "out" / ".work" / "read-with.json"
    (label,) = json.loads(note.read_text())
    for content in (None, "{", "[1]", json.dumps({"another@1": {"tokenizer": "x"}})):
        note.unlink() if content is None else note.write_text(content)
        assert run_job(load_job(job)).run["counts"]["generated"] == 0
        assert label in json.loads(note.read_text())
    templated_llama(base, "phi3", seed=4)
    assert looked(job).problems == () or "adapter" in looked(job).problems[0]
