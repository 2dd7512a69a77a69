"""The transformers bank against transformers and PEFT themselves, and the bad input it must refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mpg import BankError, FunctionModel, ModelBank
from mpg.embedded import EmbeddedModelError, resolve
from mpg.revisions import fingerprint
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


def test_every_branch_equals_peft(llama: Path, adapters: dict[str, Path]) -> None:
    bank = ModelBank.load(str(llama), adapters)
    ids = torch.randint(1, 60, (3, 7), generator=torch.Generator().manual_seed(0))
    states = bank.session(3, 16).append(slice(0, 3), ids, torch.zeros(3, dtype=torch.long))
    wanted = [peft_logits(llama, adapter, ids) for adapter in (None, adapters["x"], adapters["y"])]
    assert (wanted[0] - wanted[1]).abs().max() > 0.05  # the adapters do something
    for position in range(7):
        got = states.logits(slice(None), position)
        for branch, logits in enumerate(wanted):
            assert torch.allclose(got[branch], logits[:, position], atol=TOLERANCE)


def test_rows_of_different_length_and_a_rollback_equal_a_fresh_pass(llama: Path, adapters: dict[str, Path]) -> None:
    """Rows start at their own positions; rejected tokens are written over, not recomputed around."""
    bank = ModelBank.load(str(llama), adapters)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 60, (2, 9), generator=generator)
    session = bank.session(2, 20)
    starts = torch.zeros(2, dtype=torch.long)
    session.append(slice(0, 2), ids[:, :4], starts)
    rejected = torch.randint(1, 60, (2, 4), generator=generator)
    session.append(slice(0, 2), rejected, torch.tensor([4, 2]))  # drafts, all to be rolled back
    states = session.append(slice(0, 2), torch.stack([ids[0, 4:6], ids[1, 2:4]]), torch.tensor([4, 2]))
    for branch, adapter in enumerate((None, adapters["x"], adapters["y"])):
        first = peft_logits(llama, adapter, ids[:1, :6])[0, 5]
        second = peft_logits(llama, adapter, ids[1:, :4])[0, 3]
        assert torch.allclose(states.logits(slice(None), 1)[branch], torch.stack([first, second]), atol=TOLERANCE)


def test_a_whole_model_and_an_own_reference(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "other", seed=5)
    bank = ModelBank.load(str(llama), {"x": adapters["x"], "w": other}, {"x": adapters["y"]})
    assert bank.attributes == ("x", "w")
    ids = torch.tensor([[3, 4, 5]])
    states = bank.session(1, 8).append(slice(0, 1), ids, torch.zeros(1, dtype=torch.long))
    got = states.logits(slice(None), 2)[:, 0]
    layout = bank.layout
    assert torch.allclose(got[layout.policy[0]], peft_logits(llama, adapters["x"], ids)[0, 2], atol=TOLERANCE)
    assert torch.allclose(got[layout.policy[1]], peft_logits(other, None, ids)[0, 2], atol=TOLERANCE)
    assert torch.allclose(got[layout.reference[0]], peft_logits(llama, adapters["y"], ids)[0, 2], atol=TOLERANCE)
    assert layout.reference[1] == 0


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
