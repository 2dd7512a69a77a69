"""Well-known model families by their own configurations (tiny weights), templates and end tokens: whole jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import ModelBank, decode
from mpg.models.chat import encode_chat
from mpg.models.template import ChatStyle
from pipeline.cli import main
from pipeline.decode.requests import request_of
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from tests.fakes import tiny_adapter
from tests.templates import KINDS, save_tokenizer, tokenizer_of
from tests.tiny_job import rows, write_job, write_prompts
from tools.tiny_models import config_of, model_of

DATE = "2025-03-09"
# Family -> (template, types whose models have it, what a job says besides).
FAMILIES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "Qwen 3, thinking off": ("qwen3", ("qwen3", "qwen3_moe"), {"template_arguments": {"enable_thinking": False}}),
    "Llama 3": ("llama3", ("llama",), {}),
    "Gemma 3": ("gemma", ("gemma3_text", "gemma3"), {"system_role": "fold"}),
    "Mistral": ("mistral", ("mistral", "ministral3"), {}),
    "Phi": ("phi3", ("phi3", "phi"), {}),
    "SmolLM3, thinking off": ("smollm3", ("smollm3",), {"template_arguments": {"enable_thinking": False}}),
    "Granite": (
        "granite",
        ("granite", "granitemoe"),
        {"system": None},
    ),  # the date stands in a system message of its own
}
CASES = [(family, kind) for family, (_, kinds, _) in FAMILIES.items() for kind in kinds]


def saved(kind: str, template: str, folder: Path) -> Any:
    """A tiny model of a type, float32, with a tokenizer of a template, several end tokens and windows of 5."""
    tokenizer = tokenizer_of(template)
    ends = sorted({tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(KINDS[template].closing), 17})
    config = config_of(kind, {"vocab_size": len(tokenizer) + 7, "max_position_embeddings": 512, "bos_token_id": None})
    config.eos_token_id = config.get_text_config().eos_token_id = ends
    model = model_of(config)
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    save_tokenizer(template, folder)
    return model, ends


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_family_goes_through_a_whole_job(
    family: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template, _, told = FAMILIES[family]
    model, ends = saved(kind, template, tmp_path / "base")
    attention = [name for name in ("q_proj", "v_proj", "qkv_proj") if f".{name}." in " ".join(model.state_dict())]
    tower = r".*language_model.*(q_proj|v_proj)"  # not the layers that see
    targets = tower if kind == "gemma3" else attention
    tiny_adapter(tmp_path / "base", tmp_path / "E", seed=1, scale=0.1, targets=targets)
    write_prompts(tmp_path, ("hello you", "tell me more of it, and then of all the rest", "a"))
    job = write_job(
        tmp_path, attributes=[{"name": "E", "adapter": "E"}], personas={"kind": "one-hot", "control": True}, judges=[],
        decoder={"name": "scr-exact", "max_new_tokens": 12, "chunk_len": 4}, batch_size=6,
        model={"id": "base", "dtype": "float32", "date": DATE, "system": "Be kind.", **told},
    )  # fmt: skip
    assert main(["check", str(job)]) == 0, capsys.readouterr()
    assert main(["run", str(job)]) == 0, capsys.readouterr()
    written = {row["row_id"]: row for row in rows(tmp_path / "out")}
    plan = Plan.of(load_job(job))
    style = ChatStyle.of(told.get("template_arguments"), DATE, fold_system=told.get("system_role") == "fold")
    assert len(written) == 6 and plan.ends.ids == frozenset(ends)
    bank = ModelBank.load(tmp_path / "base", {"E": tmp_path / "E"})
    for cell in plan.cells():
        prompt = encode_chat(plan.tokenizer, cell.reference_chat(), style=style)
        text = plan.tokenizer.decode(prompt)
        assert ("Be kind." in text) == ("system" not in told) and text.count("<think>") == text.count("</think>")
        assert ("09 Mar" in text or "March 09" in text or "09 March" in text) == KINDS[template].clock
        row, request = written[cell.row_id], request_of(bank, cell)
        assert list(request.prompt_ids) == prompt
        (done,) = decode(bank, [request], cell.decoder)  # the row again, alone, in tokens
        assert (row["n_tokens"], row["finish_reason"]) == (len(done.token_ids), done.finish_reason)
        assert (done.token_ids[-1] in ends) == (row["finish_reason"] == "stop")
        ids = torch.tensor([[*prompt, *done.token_ids]])
        with torch.no_grad():
            laws = (model(input_ids=ids, use_cache=False).logits[0] / cell.decoder.temperature).log_softmax(-1)
        own = laws[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).sum()
        assert row["log_prob_reference"] == pytest.approx(float(own), abs=2e-3)
