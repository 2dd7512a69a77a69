"""The transformers bank against transformers and PEFT themselves, and the bad input it must refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mpg import BankError, DecoderSettings, FunctionModel, ModelBank, Request, decode
from mpg.models.embedded import EmbeddedModelError, resolve
from mpg.models.fingerprint import fingerprint
from mpg.oracle.decoder import decode_slowly
from tests.fakes import tiny_adapter, tiny_llama

TOLERANCE = 1e-4  # float32 logits of a two-layer model


def peft_logits(base: Path, adapter: Path | None, ids: torch.Tensor) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(ids).logits


def every_lane(bank: ModelBank, n_rows: int, capacity: int):
    """A session whose rows have all branches, and its lanes ordered by branch, then row."""
    session = bank.session(n_rows, capacity)
    branches = range(bank.layout.n_branches)
    for _ in range(n_rows):
        session.add_row(branches)
    return session, session.pick([(row, branch) for branch in branches for row in range(n_rows)])


def feed(session, entries, tokens: torch.Tensor, starts: torch.Tensor):
    """Feed ``tokens [rows, time]`` to every branch of the rows."""
    return session.append(entries, tokens[entries.rows], starts[entries.rows])


def test_every_branch_equals_peft(llama: Path, adapters: dict[str, Path]) -> None:
    bank = ModelBank.load(str(llama), adapters)
    ids = torch.randint(1, 60, (3, 7), generator=torch.Generator().manual_seed(0))
    states = feed(*every_lane(bank, 3, 16), ids, torch.zeros(3, dtype=torch.long))
    wanted = [peft_logits(llama, adapter, ids) for adapter in (None, adapters["x"], adapters["y"])]
    assert (wanted[0] - wanted[1]).abs().max() > 0.05  # the adapters do something
    for position in range(7):
        got = states.logits(slice(None), position).unflatten(0, (3, 3))
        for branch, logits in enumerate(wanted):
            assert torch.allclose(got[branch], logits[:, position], atol=TOLERANCE)


def test_rows_of_different_length_and_a_rollback_equal_a_fresh_pass(llama: Path, adapters: dict[str, Path]) -> None:
    """Rows start at their own positions; rejected tokens are written over, not recomputed around."""
    bank = ModelBank.load(str(llama), adapters)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 60, (2, 9), generator=generator)
    session, lanes = every_lane(bank, 2, 20)
    starts = torch.zeros(2, dtype=torch.long)
    feed(session, lanes, ids[:, :4], starts)
    rejected = torch.randint(1, 60, (2, 4), generator=generator)
    feed(session, lanes, rejected, torch.tensor([4, 2]))  # drafts, all to be rolled back
    states = feed(session, lanes, torch.stack([ids[0, 4:6], ids[1, 2:4]]), torch.tensor([4, 2]))
    got = states.logits(slice(None), 1).unflatten(0, (3, 2))
    for branch, adapter in enumerate((None, adapters["x"], adapters["y"])):
        first = peft_logits(llama, adapter, ids[:1, :6])[0, 5]
        second = peft_logits(llama, adapter, ids[1:, :4])[0, 3]
        assert torch.allclose(got[branch], torch.stack([first, second]), atol=TOLERANCE)


def test_a_whole_model_and_an_own_reference(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "other", seed=5)
    bank = ModelBank.load(str(llama), {"x": adapters["x"], "w": other}, {"x": adapters["y"]})
    assert bank.attributes == ("x", "w")
    ids = torch.tensor([[3, 4, 5]])
    states = feed(*every_lane(bank, 1, 8), ids, torch.zeros(1, dtype=torch.long))
    got = states.logits(slice(None), 2)
    layout = bank.layout
    assert torch.allclose(got[layout.policy[0]], peft_logits(llama, adapters["x"], ids)[0, 2], atol=TOLERANCE)
    assert torch.allclose(got[layout.policy[1]], peft_logits(other, None, ids)[0, 2], atol=TOLERANCE)
    assert torch.allclose(got[layout.reference[0]], peft_logits(llama, adapters["y"], ids)[0, 2], atol=TOLERANCE)
    assert layout.reference[1] == 0


def test_whole_models_and_own_references_decode_as_the_slow_decoder_does(
    llama: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    other = tiny_llama(tmp_path / "other", seed=5)
    bank = ModelBank.load(str(llama), {"x": adapters["x"], "w": other}, {"x": adapters["y"]})
    asked = [Request([3 + i, 4], {"x": 0.4, "w": 0.6} if i % 3 else {"w": 1.0}, seed=i) for i in range(5)]
    cases = [{}, {"drafter": "mixture", "top_k": 20}, {"name": "mod"}, {"name": "routing", "strength": {"w": 2.0}}]
    for case in cases:
        settings = DecoderSettings(chunk_len=3, horizon=4, max_new_tokens=9, **case)
        wanted = [decode_slowly(bank, request, settings) for request in asked]
        assert [c.token_ids for c in decode(bank, asked, settings, batch_size=2)] == wanted
    with pytest.raises(BankError, match="'soup' adds up LoRA adapters"):
        list(decode(bank, asked, DecoderSettings(name="soup")))


def test_a_soup_equals_pefts_own(llama: Path, adapters: dict[str, Path]) -> None:
    """The weighted sum of deltas, against PEFT's `cat` combination."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), adapters["x"], "x")
    merged.load_adapter(adapters["y"], "y")
    merged.add_weighted_adapter(["x", "y"], [0.6, 0.9], "soup", combination_type="cat")
    merged.set_adapter("soup")
    ids = torch.tensor([[3, 9, 4, 7]])
    with torch.no_grad():
        wanted = merged.eval()(ids).logits[0, -1]
    bank = ModelBank.load(str(llama), adapters)
    session = bank.session(1, 8, soup=True)
    row = session.add_row([session.soup], torch.tensor([0.6, 0.9]))
    states = session.append(session.pick([(row, session.soup)]), ids, torch.zeros(1, dtype=torch.long))
    assert torch.allclose(states.logits(slice(None), 3)[0], wanted, atol=TOLERANCE)


def test_an_adapter_over_the_head_is_refused(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    head = shutil.copytree(adapters["x"], tmp_path / "head")
    weights = load_file(head / "adapter_model.safetensors")
    weights["base_model.model.lm_head.lora_A.weight"] = torch.zeros(2, 32)
    weights["base_model.model.lm_head.lora_B.weight"] = torch.zeros(64, 2)
    save_file(weights, head / "adapter_model.safetensors")
    with pytest.raises(BankError, match="changes the vocabulary head"):
        ModelBank.load(str(llama), {"x": head})


def test_another_tokenizer_is_refused(llama: Path, tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "other", vocab_size=70)
    with pytest.raises(BankError, match="tokenizer differs"):
        ModelBank.load(str(llama), {"w": other})


def test_an_adapter_for_another_base_is_refused(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(adapters["x"], wrong)
    from safetensors.torch import load_file, save_file

    weights = load_file(wrong / "adapter_model.safetensors")
    save_file({k: torch.cat([v, v], dim=1) for k, v in weights.items()}, wrong / "adapter_model.safetensors")
    with pytest.raises(BankError, match=r"wrong: it was trained for another base model"):
        ModelBank.load(str(llama), {"x": wrong})


def test_pickled_weights_and_unsupported_adapters_are_refused(
    llama: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(llama, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BankError, match="safetensors"):
        ModelBank.load(str(pickled), {})
    dora = tmp_path / "dora"
    shutil.copytree(adapters["x"], dora)
    config = json.loads((dora / "adapter_config.json").read_text())
    (dora / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(BankError, match="use_dora"):
        ModelBank.load(str(llama), {"x": dora})
    (dora / "adapter_model.safetensors").unlink()
    with pytest.raises(BankError, match=r"no adapter_model\.safetensors"):
        ModelBank.load(str(llama), {"x": dora})


def test_references_must_name_attributes_and_functions_share_a_vocabulary() -> None:
    model = FunctionModel(lambda t: torch.zeros(len(t), 3), 3, 0)
    with pytest.raises(BankError, match="'z' is not one of the attributes"):
        ModelBank.from_functions(reference=model, attributes={"a": model}, references={"z": model})
    with pytest.raises(BankError, match="one vocabulary"):
        ModelBank.from_functions(reference=model, attributes={"a": FunctionModel(model.fn, 4, 0)})


def test_fingerprints_tell_adapters_apart(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    same = shutil.copytree(adapters["x"], tmp_path / "copy")
    assert fingerprint(adapters["x"]) == fingerprint(Path(same))
    assert fingerprint(adapters["x"]) != fingerprint(adapters["y"])
    config = json.loads((Path(same) / "adapter_config.json").read_text())
    (Path(same) / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    assert fingerprint(adapters["x"]) != fingerprint(Path(same))
    assert tiny_adapter(llama, tmp_path / "again", seed=1).is_dir()
    assert fingerprint(tmp_path / "again") == fingerprint(adapters["x"])


def test_unknown_embedded_models_are_named() -> None:
    with pytest.raises(EmbeddedModelError, match="there is one: embedded/smollm2-135m-instruct"):
        resolve("embedded/gpt-7")
    assert resolve("some/hub-id") == "some/hub-id"


def test_a_cache_folder_that_cant_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a user without a home: no later attempt unpacks the model there either."""
    (tmp_path / "home").touch()
    monkeypatch.setenv("MPG_CACHE", str(tmp_path / "home" / "mpg"))
    with pytest.raises(EmbeddedModelError, match=r"unpacked to .*/home/mpg \(Not a directory\); name .* in MPG_CACHE"):
        resolve("embedded/smollm2-135m-instruct")
