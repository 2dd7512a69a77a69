"""``mpg infer-weights`` from the command line, on a tiny random Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.chat import encode_chat
from mpg.models.template import ChatStyle
from personas.files import load_personas
from pipeline.cli import main
from tests.fakes import tiny_adapter, tiny_llama
from tests.templates import KINDS, templated_llama, tokenizer_of


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, two adapters, and texts that one of them wrote."""
    folder = tmp_path_factory.mktemp("desk")
    base = tiny_llama(folder / "base")
    adapters = {name: tiny_adapter(base, folder / name, seed=seed) for seed, name in enumerate("xy", start=1)}
    bank = ModelBank.load(str(base), adapters)
    settings = DecoderSettings(max_new_tokens=20)
    prompt = bank.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], add_generation_prompt=True, return_dict=False
    )
    texts = {}
    for name in "xy":
        requests = [Request(prompt, {name: 1.0}, seed=i) for i in range(30)]
        texts[name] = [bank.tokenizer.decode(c.token_ids) for c in decode(bank, requests, settings)]
    pairs = [{"prompt": "hello", "chosen": a, "rejected": b} for a, b in zip(texts["y"], texts["x"], strict=True)]
    write(folder / "pairs.jsonl", [row for row in pairs if row["chosen"] != row["rejected"]])
    write(folder / "texts.jsonl", [{"prompt": "hello", "response": text} for text in texts["y"]])
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def infer(desk: Path, *arguments: str) -> int:
    model = ["--model", str(desk / "base")]
    return main(["infer-weights", *arguments, *model, "--attributes", f"x={desk / 'x'}", f"y={desk / 'y'}"])


@pytest.mark.parametrize("table", ["pairs", "texts"])
def test_examples_become_a_persona(desk: Path, tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "ada.yaml"
    assert infer(desk, str(desk / f"{table}.jsonl"), "--output", str(output)) == 0
    (persona,) = load_personas(output, ["x", "y"])
    assert persona.name == "ada" and persona.weights["y"] > 0.6
    printed = capsys.readouterr().out
    assert "95 % interval" in printed and f"written: {output}" in printed
    # What is written is never lost.
    assert infer(desk, str(desk / f"{table}.jsonl"), "--output", str(output)) == 2
    assert "is there already; name another file, or remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.jsonl"], "no.jsonl: no such file"),
        (["{desk}/base"], "has no column 'prompt' (columns: "),
        (["{desk}/pairs.jsonl", "--column", "chosen=no"], "has no column 'no' (columns: prompt, chosen, rejected)"),
        (["{desk}/pairs.jsonl", "--strength", "0"], "--strength: 0.0 must be above 0"),
        (["{desk}/pairs.jsonl", "--strength", "1e308"], "--strength: 1e+308 must be above 0, at most 1e+06"),
        (["{desk}/pairs.jsonl", "--horizon", "-1"], "--horizon: -1 must be at least 1"),
        (["{desk}/pairs.jsonl", "--batch-size", "0"], "--batch-size: 0 must be at least 1"),
        (["{desk}/pairs.jsonl", "--attributes", "Q"], "--attributes Q: not shipped (shipped: "),
        (["{desk}/pairs.jsonl", "--attributes", "Q=no"], "--attributes Q=no: 'no' is no folder with adapter_con"),
        (["{desk}/pairs.jsonl", "--attributes", "E", "E"], "--attributes E: 'E' is given twice"),
        (["{desk}/pairs.jsonl", "--output", "x.txt"], "--output x.txt: is no .yaml file"),
    ],
)
def test_each_mistake_has_its_line(
    desk: Path, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("{desk}", str(desk)) for argument in arguments]
    defaults = ["infer-weights", "--attributes", "E", "--output", str(tmp_path / "p.yaml"), "--model", str(desk / "no")]
    assert main([*defaults, *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mpg: ") and says in error and error.count("\n") == 1
    assert not (tmp_path / "p.yaml").exists()


def test_pairs_that_speak_for_no_attribute(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (desk / "pairs.jsonl").read_text().splitlines()]
    write(tmp_path / "turned.jsonl", [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows])
    arguments = ["infer-weights", str(tmp_path / "turned.jsonl"), "--model", str(desk / "base")]
    assert main([*arguments, "--attributes", f"y={desk / 'y'}", "--output", str(tmp_path / "p.yaml")]) == 2
    assert "no weights of y order more than" in capsys.readouterr().err


def test_a_damaged_adapter_is_named_and_another_base_may_be_known(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = desk / "y" / "adapter_config.json"
    sound = config.read_text()
    try:
        config.write_text(json.dumps(json.loads(sound) | {"lora_alpha": "much"}))
        assert infer(desk, str(desk / "texts.jsonl"), "--output", str(tmp_path / "a.yaml")) == 2
        said = capsys.readouterr().err
        assert f"--attributes: adapter {desk / 'y'}: adapter_config.json: lora_alpha: 'much'" in said
        assert "--model" not in said
        config.write_text(json.dumps(json.loads(sound) | {"base_model_name_or_path": "me/another"}))
        for options, warned in ((["--any-base"], False), ([], True)):
            out = str(tmp_path / f"{warned}.yaml")
            assert infer(desk, str(desk / "texts.jsonl"), "--output", out, *options) == 0
            assert ("base_model_name_or_path: 'me/another' is not" in caplog.text) == warned
    finally:
        config.write_text(sound)


@pytest.mark.parametrize("kind", ["phi3", "llama3", "gemma"])
def test_examples_are_read_as_decoding_reads_and_writes_them(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One BOS, the day that is asked for, and the end that closes an answer in the template, whatever closes theirs."""
    base = templated_llama(tmp_path / "base", kind)
    tiny_adapter(base, tmp_path / "x", seed=1)
    tokenizer = tokenizer_of(kind)
    end = tokenizer.convert_tokens_to_ids(KINDS[kind].closing)
    write(tmp_path / "texts.jsonl", [{"prompt": "hello", "response": f"yes{e}"} for e in ("", KINDS[kind].closing,
                                                                                        KINDS[kind].eos)])  # fmt: skip
    seen: list[Any] = []

    def noted(bank: ModelBank, texts: Any, settings: DecoderSettings, **how: Any) -> Any:
        seen.extend(texts)
        raise ValueError("that is all")

    monkeypatch.setattr("mpg.score.weights.from_texts", noted)
    arguments = ["infer-weights", str(tmp_path / "texts.jsonl"), "--model", str(base), "--date", "2025-03-09"]
    assert main([*arguments, "--attributes", f"x={tmp_path / 'x'}", "--output", str(tmp_path / "p.yaml")]) == 2
    chat = [{"role": "user", "content": "hello"}]
    prompt = encode_chat(tokenizer, chat, style=ChatStyle.of(date="2025-03-09"))
    assert seen == [(prompt, [*tokenizer("yes", add_special_tokens=False).input_ids, end])] * 3
