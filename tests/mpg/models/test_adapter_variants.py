"""Every adapter that PEFT can write: PEFT's own law, or a refusal by the field's name before weights are loaded."""

from __future__ import annotations

import dataclasses

import pytest

from mpg.models.adapter_config import HARMLESS, LIMITED, READ
from tools import adapter_variants
from tools.adapter_makers import variants
from tools.adapter_variants import DOCUMENT, TOLERANCE, Row, rows, verdicts

# Where a refusal begins: the file, the field and its value, or the layer.
REFUSED = {
    "PiSSA": "adapter_config.json: init_lora_weights: 'pissa'",
    "PiSSA by a fast SVD": "adapter_config.json: init_lora_weights: 'pissa_niter_4'",
    "OLoRA": "adapter_config.json: init_lora_weights: 'olora'",
    "CorDA": "adapter_config.json: init_lora_weights: 'corda'",
    "LoRA-GA": "adapter_config.json: init_lora_weights: 'lora_ga'",
    "LoftQ": "adapter_config.json: init_lora_weights: 'loftq'",
    "KaSA": "adapter_config.json: kasa_config: ",
    "BD-LoRA": "adapter_config.json: use_bdlora: ",
    "Arrow": "adapter_config.json: arrow_config: ",
    "QALoRA": "adapter_config.json: use_qalora: True",
    "Megatron's layers": "adapter_config.json: megatron_config: ",
    "embeddings": "target_modules: weight 'base_model.model.model.embed_tokens",
    "the vocabulary head": "target_modules: weight 'base_model.model.lm_head",
    "saved modules": "adapter_config.json: modules_to_save: ['lm_head']",
    "trained tokens": "adapter_config.json: trainable_token_indices: [1, 2]",
    "tied embeddings": "adapter_config.json: ensure_weight_tying: True",
    "biases of the model": "adapter_config.json: bias: 'all'",
    "biases of adapted layers": "adapter_config.json: bias: 'lora_only'",
    "parameters by name": "adapter_config.json: target_parameters: ['self_attn.k_proj.weight']",
    "experts of a mixture (Mixtral)": "adapter_config.json: target_parameters: ",
    "torch's fused attention (MHA)": "target_modules: 'model.layers.0.fused' is a MultiheadAttention",
    "replicated layers": "adapter_config.json: layer_replication: [[0, 2], [1, 2]]",
    "a task with a head of its own": "adapter_config.json: modules_to_save: ",
    "a field that nobody here knows": "adapter_config.json: lora_sparsity: 0.5",
    "pickled weights (.bin)": "FOLDER has no adapter_model.safetensors but adapter_model.bin",
    "another method (IA3)": "adapter_config.json: peft_type: 'IA3'",
}


@pytest.fixture(scope="module")
def found() -> list[Row]:
    return rows()


def test_what_is_supported_gives_pefts_own_law(found: list[Row]) -> None:
    taken = {row.name: row.distance for row in found if row.distance is not None}
    assert not set(taken) & set(REFUSED) and set(taken) | set(REFUSED) == {row.name for row in found}
    assert {name: distance for name, distance in taken.items() if not distance < TOLERANCE} == {}


def test_what_is_refused_is_named_in_one_line(found: list[Row]) -> None:
    said = {row.name: row.refusal for row in found if row.distance is None}
    assert {name: said.get(name, "taken") for name, start in REFUSED.items() if not said[name].startswith(start)} == {}
    assert all(len(line.splitlines()) == 1 and ("; " in line or ": " in line) for line in said.values())


def test_the_document_says_what_comes_out(found: list[Row]) -> None:
    assert verdicts(DOCUMENT.read_text("utf-8")) == {row.name: row.verdict for row in found}


@pytest.mark.filterwarnings("ignore")  # PEFT's own remarks
def test_another_law_would_be_found(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """DoRA without its scales, an aLoRA that is on at once, a scale that is not the layer's own: each is far off."""
    from mpg.models import lane_linear, lanes
    from mpg.models.adapter_config import AdapterConfig

    def distance(name: str) -> float:
        (variant,) = (each for each in variants() if each.name == name)
        measured = adapter_variants.row_of(variant, tmp_path_factory.mktemp("one")).distance
        assert measured is not None
        return measured

    with monkeypatch.context() as broken:
        broken.setattr(lane_linear._Scaled, "__call__", lambda self, base, low, _: self.bare(base + self.up(low)))
        assert distance("DoRA") > 1e-3
        assert distance("biases of the factors") > 1e-3
    with monkeypatch.context() as broken:
        broken.setattr(lanes, "_token_by_token", lambda mix, *_: mix)
        assert distance("aLoRA") > 1e-3
    with monkeypatch.context() as broken:
        broken.setattr(AdapterConfig, "scale_of", lambda self, _: self.lora_alpha / self.r)
        assert distance("ranks and alphas by layer") > 1e-3


def test_every_field_of_pefts_config_is_judged() -> None:
    from peft import LoraConfig

    judged = [*READ, *HARMLESS, *LIMITED]
    assert len(judged) == len(set(judged))
    assert {each.name for each in dataclasses.fields(LoraConfig)} == set(judged)
