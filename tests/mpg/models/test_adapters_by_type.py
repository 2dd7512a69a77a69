"""Adapters as `mpg train` makes them over models of many types, held against PEFT's laws; and what is not adapted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from mpg import ModelBank
from mpg.models.adapter_files import adaptable, check_fit, read_lora
from mpg.models.errors import AdapterError
from mpg.train.begin import targets
from tests.fakes import feed_every_branch, tiny_tokenizer
from tools.tiny_models import config_of, model_of

TYPES = (
    *("minicpm3", "deepseek_v2", "deepseek_v3", "youtu", "gpt2", "opt", "gemma2", "gemma3_text", "phi3", "qwen2_moe"),
    *("cohere", "granite", "olmo2", "stablelm", "gpt_oss", "mixtral", "llama4_text", "gemma3", "gpt_neox", "bitnet"),
)


def adapted(kind: str, folder: Path, **options: object) -> Path:
    """A model of a type, and an adapter over all that is trained in it."""
    base = model_of(config_of(kind))
    base.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    names = targets(base)["target_modules"]
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, target_modules=names, task_type="CAUSAL_LM", **options))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder / "x")
    return folder


@pytest.mark.parametrize("kind", TYPES)
def test_every_layer_that_is_trained_is_decoded_with_as_peft_has_it(kind: str, tmp_path: Path) -> None:
    place = adapted(kind, tmp_path)
    bank = ModelBank.load(place / "base", {"x": place / "x"})
    ids = torch.randint(3, 60, (1, 13), generator=torch.Generator().manual_seed(2))
    plain = AutoModelForCausalLM.from_pretrained(place / "base", dtype=torch.float32).eval()
    peft = PeftModel.from_pretrained(plain, str(place / "x")).eval()
    with torch.no_grad():
        own = [peft(input_ids=ids, use_cache=False).logits[0].softmax(-1)]
        with peft.disable_adapter():
            own.insert(0, peft(input_ids=ids, use_cache=False).logits[0].softmax(-1))
    states = feed_every_branch(bank, ids)
    for branch in (0, 1):
        got = torch.cat([states.logits(torch.tensor([branch]), at) for at in range(13)]).softmax(-1)
        assert float((got - own[branch]).abs().sum(-1).max()) / 2 < 1e-4
    assert float((own[0] - own[1]).abs().sum(-1).max()) / 2 > 1e-2


def test_a_layer_behind_the_models_own_is_refused(tmp_path: Path) -> None:
    base = model_of(config_of("modernbert-decoder"))
    head = next(name for name, _ in base.named_modules() if name.startswith("lm_head.") or name.startswith("head."))
    assert not any(name.startswith("lm_head") or name.startswith("head.") for name in adaptable(base))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=[head], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="lies behind the model's layers"):
        check_fit(model_of(config_of("modernbert-decoder")), read_lora(tmp_path))


def test_dora_over_an_output_of_zeros_is_named(tmp_path: Path) -> None:
    """Its norm is 0: PEFT's own layer gives NaN there, and every lane would."""
    place = adapted("llama", tmp_path, use_dora=True)
    from safetensors.torch import load_file, save_file

    name = "model.layers.1.self_attn.q_proj"
    base, adapter = (
        load_file(place / "base" / "model.safetensors"),
        load_file(place / "x" / "adapter_model.safetensors"),
    )
    base[f"{name}.weight"][3] = 0
    adapter[f"base_model.model.{name}.lora_B.weight"][3] = 0
    save_file(base, place / "base" / "model.safetensors", metadata={"format": "pt"})
    save_file(adapter, place / "x" / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=rf"DoRA's norm of layer '{name}' is 0 in places"):
        ModelBank.load(place / "base", {"x": place / "x"})
