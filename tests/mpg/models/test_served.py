"""The table of model types is what comes out when it is made anew; what is not in it is refused before weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from mpg import ModelBank
from mpg.models import served
from mpg.models.errors import BankError
from mpg.models.head import Float32Linear
from mpg.models.hub import Place
from mpg.models.positions import max_positions_of
from mpg.models.pretrained import skeleton_of
from tests.fakes import tiny_tokenizer
from tools.model_types import DOCS, looked_at, type_names
from tools.tiny_models import config_of, model_of

TABLE = served.table()


def test_every_type_of_the_installed_transformers_is_in_the_table() -> None:
    assert sorted([*TABLE["served"], *TABLE["refused"]]) == type_names(), "python -m tools.model_types --write"
    assert f"which models: {len(TABLE['served'])} types" in (DOCS.parents[1] / "README.md").read_text()


# Of each kind of pass, of attention and of refusal; all others in `make test-long`, which CI runs, too.
OFTEN = (
    *(
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen2_moe",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "phi3",
        "smollm3",
        "granite",
    ),
    *(
        "cohere2",
        "gpt2",
        "gpt_oss",
        "llama4_text",
        "deepseek_v3",
        "falcon",
        "mpt",
        "olmo2",
        "stablelm",
        "bloom",
        "bert",
    ),
    *("mamba", "lfm2", "bart", "recurrent_gemma", "emu3", "gpt_neo"),
)


@pytest.mark.parametrize(
    "name", [each if each in OFTEN else pytest.param(each, marks=pytest.mark.long) for each in type_names()]
)
def test_a_type_comes_out_as_the_table_says(name: str) -> None:
    """Its own laws and the engine's, for each switch of its configuration: see ``tools/model_types.py``."""
    found = looked_at(name)
    assert found.way == TABLE["served"].get(name)
    assert list(found.not_with.values()) == TABLE["not_with"].get(name, [])
    assert found.layers <= set(TABLE["layers"])
    if found.way is None:
        assert found.why.split()[:3] == TABLE["refused"][name].split()[:3]
        assert f"\n| `{name}` | {TABLE['refused'][name].split()[0]}" in DOCS.read_text()
    else:
        (row,) = (line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}` |"))
        _, _, way, _, held, not_with, _ = (cell.strip() for cell in row.split("|"))
        assert (way, held, not_with) == (found.way, ", ".join(found.held), ", ".join(found.not_with) or "-")


def folder_of(config: Any, folder: Path) -> Path:
    """A model whose weights are a file that nobody could read."""
    config.save_pretrained(folder)
    (folder / "model.safetensors").write_text("no weights")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("mamba", {}, "type 'mamba' is not served: it keeps a state"),
        ("bert", {}, "type 'bert' is not served: it is no decoder"),
        ("falcon", {"alibi": True}, "type 'falcon' is not served with alibi: True"),
        ("lfm2", {}, "type 'lfm2' is not served"),
        ("qwen3", {"layer_types": ["full_attention", "linear_attention"]}, "has layers of kind linear_attention"),
        *(
            ("llama", {"quantization_config": {"quant_method": method}}, f"quantization_config: {method}")
            for method in ("fp8", "gptq", "awq", "bitsandbytes", "compressed-tensors", "mxfp4")
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_served_is_refused_by_name_before_weights(
    kind: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = folder_of(config_of(kind), tmp_path)
    written = json.loads((folder / "config.json").read_text()) | options
    (folder / "config.json").write_text(json.dumps(written))
    for load in (lambda: ModelBank.load(folder, {}), lambda: skeleton_of(Place(str(folder)))):
        with pytest.raises(BankError) as raised:
            load()
        assert words in str(raised.value) and "\n" not in str(raised.value)


def test_a_type_that_nobody_tested_needs_a_word_and_is_held_against_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("qwen3")
    model_of(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    unknown = TABLE | {"served": {name: way for name, way in TABLE["served"].items() if name != "qwen3"}}
    monkeypatch.setattr(served, "table", lambda: unknown)
    with pytest.raises(BankError, match=r"'qwen3' has not been held.*model\.untested: true"):
        ModelBank.load(tmp_path, {})
    assert ModelBank.load(Place(str(tmp_path), untested=True), {}).backbones[0].way == "joined"


@pytest.mark.parametrize("name", ["granite", "qwen3"])
def test_a_pass_that_is_not_the_models_own_is_found_at_loading(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Granite has factors, Qwen 3 has norms that a Llama has not."""
    config = config_of(name, {"logits_scaling": 3.0} if name == "granite" else {})
    model_of(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    ModelBank.load(tmp_path, {})
    monkeypatch.setattr(served, "table", lambda: TABLE | {"served": {name: "lean"}})
    with pytest.raises(BankError, match="another law than the model's own forward"):
        ModelBank.load(tmp_path, {})


def test_other_devices_are_refused(llama: Path) -> None:
    with pytest.raises(BankError, match="device 'mps' is not served"):
        ModelBank.load(llama, {}, device="mps")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_head_keeps_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, hidden = (torch.randn(shape, generator=generator).to(dtype) for shape in ((50, 32), (3, 4, 32)))
    bias = torch.randn(50, generator=generator).to(dtype)
    got = Float32Linear(weight, bias)(hidden)
    assert got.dtype == torch.float32
    assert torch.allclose(got, hidden.float() @ weight.float().T + bias.float(), atol=1e-4)


@pytest.mark.parametrize("name", TABLE["served"])
def test_how_long_a_text_a_model_takes_is_known(name: str) -> None:
    """Past it there are no positions: rows that need more are rejected, not the batch."""
    assert max_positions_of(config_of(name)), name


def test_windows_take_the_general_pass() -> None:
    for options, way in (({"sliding_window": None}, "lean"), ({"sliding_window": 5}, "general")):
        assert served.way_of(AutoConfig.for_model("mistral", **options)) == way


def test_weights_that_are_no_numbers_are_found_at_loading(tmp_path: Path) -> None:
    model = model_of(config_of("llama"))
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BankError, match=r"its logits are not numbers .* model\.dtype: float32"):
        ModelBank.load(tmp_path, {})
