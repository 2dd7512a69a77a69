"""Adapter folders: what a config says is held against file and model, and damage is one line about the adapter."""

from __future__ import annotations

import json
import logging
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpg import BankError, ModelBank
from mpg.models.adapter_files import _warn
from mpg.models.fingerprint import fingerprint
from mpg.models.hub import Place, adapter_folder
from mpg.models.load import check_source
from mpg.models.pretrained import skeleton_of

LAYER = "base_model.model.model.layers.1.self_attn.q_proj"
PATTERN = {"rank_pattern": {"q_proj": 2, "v_proj": 5}}


@pytest.fixture
def adapter(adapters: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapters["x"], tmp_path / "mine"))


@pytest.fixture(scope="module")
def skeleton(llama: Path) -> Any:
    return skeleton_of(Place(str(llama)))


def set_fields(folder: Path, **fields: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def set_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "adapter_model.safetensors"
    weights = {key: value.clone() for key, value in load_file(file).items()}
    change(weights)
    save_file(weights, file)


def said(skeleton: Any, folder: Path, llama: Path) -> str:
    """What a look without weights says; it must be one line about the adapter, and of a load the same."""
    with pytest.raises(BankError) as caught:
        check_source(skeleton, None, Place(str(folder)), Place(str(llama)))
    line = str(caught.value)
    assert len(line.splitlines()) == 1 and str(folder) in line
    with pytest.raises(BankError) as again:
        ModelBank.load(str(llama), {"x": folder})
    assert str(again.value) == line
    return line.partition(f"{folder}: ")[2] or line


# --------------------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("r", 0, "r: 0: it must be a whole number from 1"),
        ("r", "4", "r: '4': "),
        ("r", True, "r: True: "),
        ("r", 2.5, "r: 2.5: "),
        ("r", None, "r: None: "),
        ("r", 10**400, "r: 1000"),
        ("lora_alpha", float("nan"), "lora_alpha: nan: it must be a number other than 0"),
        ("lora_alpha", float("inf"), "lora_alpha: inf: "),
        ("lora_alpha", 10**400, "lora_alpha: 1000"),
        ("lora_alpha", 0, "lora_alpha: 0: "),
        ("lora_alpha", "8", "lora_alpha: '8': "),
        ("use_rslora", "yes", "use_rslora: 'yes': it must be true or false"),
        ("use_dora", 1, "use_dora: 1: "),
        ("use_dora", True, "use_dora: true, and layer 'model.layers.0.mlp.down_proj' has no lora_magnitude_vector"),
        ("lora_bias", True, "lora_bias: true, and layer 'model.layers.0.mlp.down_proj' has no lora_bias"),
        ("rank_pattern", {"q_proj": 0}, "rank_pattern: {'q_proj': 0}: it must be a mapping to ranks"),
        ("rank_pattern", {"q_(proj": 2}, "rank_pattern: {'q_(proj': 2}: no regular expression"),
        (
            "rank_pattern",
            {"q_proj": 3},
            "rank_pattern: 3, and layer 'model.layers.0.self_attn.q_proj' has factors of rank 2",
        ),
        ("rank_pattern", ["q_proj"], "rank_pattern: ['q_proj']: "),
        ("alpha_pattern", {"q_proj": float("nan")}, "alpha_pattern: {'q_proj': nan}: it must be a mapping to numbers"),
        ("target_modules", None, "target_modules: None: it must be the layers' names"),
        ("target_modules", [], "target_modules: []: "),
        ("target_modules", ["q_proj", 7], "target_modules: ['q_proj', 7]: "),
        ("target_modules", "(", "target_modules: '(': no regular expression"),
        ("target_modules", ["q_proj"], "adapts layer 'model.layers.0.self_attn.k_proj', which target_modules"),
        ("exclude_modules", ["up_proj"], "adapts layer 'model.layers.0.mlp.up_proj', which target_modules"),
        ("layers_to_transform", "0", "layers_to_transform: '0': it must be numbers of layers"),
        ("layers_pattern", 3, "layers_pattern: 3: "),
        ("init_lora_weights", "PiSSA", "init_lora_weights: 'PiSSA': it goes with a base whose weights it has changed"),
        ("init_lora_weights", "OLoRA", "init_lora_weights: 'OLoRA': it goes with a base"),
        ("init_lora_weights", "mipssa", "init_lora_weights: 'mipssa': it is not known"),
        ("init_lora_weights", ["pissa"], "init_lora_weights: ['pissa']: it is not known"),
        ("alora_invocation_tokens", [], "alora_invocation_tokens: []: it must be a list of one or more token ids"),
        ("alora_invocation_tokens", [-1], "alora_invocation_tokens: [-1]: "),
        ("alora_invocation_tokens", "abc", "alora_invocation_tokens: 'abc': "),
        ("alora_invocation_tokens", [5, 64], "alora_invocation_tokens: 64 is no token of this model (0..63)"),
        ("base_model_name_or_path", 7, "base_model_name_or_path: 7: "),
        ("peft_type", "LOHA", "peft_type: 'LOHA': only LoRA is supported"),
        ("task_type", "SEQ_CLS", "task_type: 'SEQ_CLS': "),
        ("bias", True, "bias: True: "),
        ("arrow_config", {}, "arrow_config: {}: "),  # all defaults, not nothing
        ("kasa_config", {}, "kasa_config: {}: "),
        ("use_bdlora", {}, "use_bdlora: {}: "),
        ("lora_of_tomorrow", 1, "lora_of_tomorrow: 1: a field that is not known here"),
        ("lora_of_tomorrow", 0, "lora_of_tomorrow: 0: "),
    ],
)
def test_a_field_is_refused_by_name(
    skeleton: Any, llama: Path, adapter: Path, field: str, value: Any, words: str
) -> None:
    set_fields(adapter, **{field: value})
    assert words in said(skeleton, adapter, llama)


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 16},
        {"r": 16, "lora_alpha": 32},
        {"rank_pattern": {"q_proj": 2}, "r": 4},
    ],
)
def test_ranks_of_the_config_are_those_of_the_file(
    skeleton: Any, llama: Path, adapter: Path, fields: dict[str, Any]
) -> None:
    """``r: 16`` over factors of rank 4 ran at a quarter of the strength."""
    set_fields(adapter, **fields)
    assert f"r: {fields['r']}, and layer 'model.layers.0.mlp.down_proj' has factors of rank 2 and 2" in said(
        skeleton, adapter, llama
    )


def test_layers_beyond_those_of_the_config_are_refused(skeleton: Any, llama: Path, adapter: Path) -> None:
    every = [f"{letter}_proj" for letter in "qkvo"] + ["gate_proj", "up_proj", "down_proj"]
    set_fields(adapter, target_modules=every, layers_to_transform=[0])
    assert "adapts layer 'model.layers.1.self_attn.q_proj', which target_modules" in said(skeleton, adapter, llama)


def test_adapters_that_are_two_kinds_at_once_are_refused(skeleton: Any, llama: Path, adapter: Path) -> None:
    set_fields(adapter, use_dora=True, alora_invocation_tokens=[5])
    assert said(skeleton, adapter, llama).endswith("PEFT has no adapter that is use_dora, too; save the adapter again")


def test_fields_that_change_nothing_are_taken(skeleton: Any, llama: Path, adapter: Path) -> None:
    set_fields(
        adapter,
        lora_dropout=0.3,
        inference_mode=False,
        peft_version="9.9",
        revision="v1",
        eva_config={"rho": 1.0},
        init_lora_weights="gaussian",
        lora_of_yesterday=None,
        layers_to_transform=[],
        modules_to_save=[],
    )
    check_source(skeleton, None, Place(str(adapter)), Place(str(llama)))


# --------------------------------------------------------------------------- tensors


def _nan(weights: dict[str, torch.Tensor], value: float = float("nan")) -> None:
    weights[f"{LAYER}.lora_B.weight"][3, 1] = value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nan, "layer 'model.layers.1.self_attn.q_proj' holds NaN or infinite values"),
        (lambda w: _nan(w, float("inf")), "layer 'model.layers.1.self_attn.q_proj' holds NaN or infinite values"),
        (lambda w: w.pop(f"{LAYER}.lora_A.weight"), "layer 'model.layers.1.self_attn.q_proj' has one factor of two"),
        (
            lambda w: [w.pop(f"{LAYER}.lora_{half}.weight") for half in "AB"],
            "layer 'model.layers.1.self_attn.q_proj' is named and adapter_model.safetensors has no factors of it",
        ),
        (lambda w: w.clear(), "no layer is adapted"),
        (lambda w: w.update({f"{LAYER}.lora_C.weight": torch.ones(2)}), "q_proj.lora_C.weight' is not a LoRA factor"),
        (
            lambda w: w.update({"base_model.model.model.embed_tokens.weight": torch.ones(64, 32)}),
            "is not a LoRA factor",
        ),
        (lambda w: w.update({"model.embed_tokens.weight": torch.ones(64, 32)}), "PEFT passes over it"),
        (
            lambda w: w.update({f"{LAYER}.lora_magnitude_vector": torch.ones(32)}),
            "use_dora: false, and layer 'model.layers.1.self_attn.q_proj' has a lora_magnitude_vector",
        ),
        (lambda w: w.update({f"{LAYER}.lora_B.bias": torch.ones(32)}), "lora_bias: false, and layer"),
        (
            lambda w: w.update({f"{LAYER}.lora_A.weight": w[f"{LAYER}.lora_A.weight"].double()}),
            f"'{LAYER}.lora_A.weight' is float64; save the adapter in float32",
        ),
        (
            lambda w: w.update({f"{LAYER}.lora_A.weight": w[f"{LAYER}.lora_A.weight"].to(torch.float8_e4m3fn)}),
            "is float8_e4m3fn; save",
        ),
        (lambda w: w.update({f"{LAYER}.lora_A.weight": torch.ones(32)}), "lora_A [32]"),
        (lambda w: w.update({f"{LAYER}.lora_A.weight": torch.ones(0, 32)}), "lora_A [0, 32]"),
        (
            lambda w: w.update({f"{LAYER}.lora_A.weight": torch.ones(2, 31)}),
            "it was trained for another base model (layer 'model.layers.1.self_attn.q_proj' of shape 32x31",
        ),
        (
            lambda w: w.update({f"{LAYER}.lora_A.weight": torch.ones(4, 32)}),
            "r: 2, and layer 'model.layers.1.self_attn.q_proj' has factors of rank 4 and 2",
        ),
    ],
)
def test_tensors_are_held_against_config_and_model(
    skeleton: Any, llama: Path, adapter: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    set_weights(adapter, change)
    assert words in said(skeleton, adapter, llama)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_usual_number_formats_are_taken(skeleton: Any, llama: Path, adapter: Path, dtype: torch.dtype) -> None:
    set_weights(adapter, lambda w: w.update({key: value.to(dtype) for key, value in w.items()}))
    check_source(skeleton, None, Place(str(adapter)), Place(str(llama)))


# --------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "adapter_config.json can't be read (JSONDecodeError"),
        (b"", "adapter_config.json can't be read (JSONDecodeError"),
        (b"[]", "adapter_config.json holds a list, no mapping"),
        (b"null", "adapter_config.json holds a NoneType, no mapping"),
        (b"\xff\xfe{}", "adapter_config.json can't be read (UnicodeDecodeError"),
        (b"[" * 100_000, "adapter_config.json can't be read (RecursionError"),
        (b"{}", "peft_type: None: only LoRA is supported"),
        (b'{"peft_type": "LORA"}', "can't be read (KeyError: 'target_modules')"),
        (b'{"peft_type": "LORA", "target_modules": ["q_proj"]}', "(KeyError: 'r'): it must be a whole number from 1"),
    ],
)
def test_a_damaged_config_is_one_line(skeleton: Any, llama: Path, adapter: Path, content: bytes, words: str) -> None:
    (adapter / "adapter_config.json").write_bytes(content)
    if not words.startswith(("(Key", "can't be read (Key")):
        assert words in said(skeleton, adapter, llama)
    else:
        assert "can't be read (KeyError: " in said(skeleton, adapter, llama)


def test_a_folder_in_a_files_place_is_one_line(skeleton: Any, llama: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.safetensors").mkdir()
    assert "has no adapter_model.safetensors" in said(skeleton, adapter, llama)
    (adapter / "adapter_config.json").unlink()
    (adapter / "adapter_config.json").mkdir()
    assert "has neither adapter_config.json nor config.json" in said(skeleton, adapter, llama)


def test_whatever_is_in_the_files_nothing_but_one_line_comes_out(
    skeleton: Any, llama: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Configs with values of other kinds and files with bytes changed, cut or added, at random."""
    draw = random.Random(16)
    config = json.loads((adapters["x"] / "adapter_config.json").read_text())
    sound = {name: (adapters["x"] / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")}
    values = [None, True, False, 0, -1, 1, 3, 2.5, 1e308, float("nan"), "", "x", "(", "*", [], [1], ["q_proj"], [[1]]]
    values += [{}, {"q_proj": 2}, {"(": 1}, {"x": None}, 10**400, "é\x00\n", "a" * 5000, {"a": {"b": [1]}}]
    refused = 0
    for index in range(400):
        folder = tmp_path / str(index)
        folder.mkdir()
        for name, content in sound.items():
            (folder / name).write_bytes(content)
        if index % 2:
            changed = config | {draw.choice([*config, "other"]): draw.choice(values) for _ in range(draw.randint(1, 2))}
            (folder / "adapter_config.json").write_text(json.dumps(changed))
        else:
            name = draw.choice([*sound, "adapter_model.safetensors"])
            _damage(folder / name, draw)
        try:
            check_source(skeleton, None, Place(str(folder)), Place(str(llama)))
            fingerprint(folder)
        except BankError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and str(folder) in str(error), error
        shutil.rmtree(folder)
    assert refused > 200


def _damage(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    header = struct.unpack("<Q", content[:8])[0] if file.suffix == ".safetensors" else len(content)
    match draw.randrange(4):
        case 0:  # cut short
            del content[draw.randrange(len(content)) :]
        case 1:  # bytes of the header, or of the text
            for _ in range(draw.randint(1, 4)):
                content[draw.randrange(min(len(content), header + 8))] = draw.randrange(256)
        case 2:
            content += draw.randbytes(draw.randint(1, 40))
        case _:  # values: as likely as not still numbers
            content[draw.randrange(len(content))] = 0xFF
    file.write_bytes(content)


def test_pickled_weights_are_named(llama: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(BankError, match=r"no adapter_model\.safetensors but adapter_model\.bin, a pickle"):
        adapter_folder(Place(str(adapter)))


def test_an_adapter_in_a_subfolder_is_pointed_to(adapter: Path) -> None:
    """Where PEFT saves one of another name than ``default``."""
    with pytest.raises(BankError, match=r"neither adapter_config\.json nor config\.json; name its subfolder \(mine\)"):
        adapter_folder(Place(str(adapter.parent)))
    assert adapter_folder(Place(str(adapter.parent), subfolder="mine")) == adapter


# --------------------------------------------------------------------------- the base


@pytest.mark.parametrize(
    ("theirs", "ours", "outcome"),
    [
        ("owner/Tiny-Llama", "owner/Tiny-Llama", "silent"),
        ("other/tiny-llama", "owner/Tiny-Llama", "silent"),
        ("tiny-llama", "owner/Tiny-Llama", "silent"),
        ("owner/Tiny-Llama-Chat", "owner/Tiny-Llama", "refused"),
        ("gpt2", "owner/Tiny-Llama", "refused"),
        ("/data/models/Tiny-Llama/", "owner/Tiny-Llama", "silent"),
        ("C:\\models\\Tiny-Llama", "owner/Tiny-Llama", "silent"),
        ("/cache/models--owner--Tiny-Llama/snapshots/0123", "owner/Tiny-Llama", "silent"),
        ("/data/models/other", "owner/Tiny-Llama", "warned"),
        ("owner/other", "FOLDER", "warned"),
        ("owner/base", "FOLDER", "silent"),
        ("embedded/smollm2-135m-instruct", "embedded/smollm2-135m-instruct", "silent"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "embedded/smollm2-135m-instruct", "silent"),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", "embedded/smollm2-135m-instruct", "warned"),
        ("embedded/smollm2-135m-instruct", "owner/Tiny-Llama", "warned"),
        (None, "owner/Tiny-Llama", "silent"),
        ("", "owner/Tiny-Llama", "silent"),
        ("x" * 5000, "owner/Tiny-Llama", "warned"),
        ("a\x00b", "owner/Tiny-Llama", "warned"),
    ],
)
def test_an_adapter_of_another_base_is_told(
    skeleton: Any,
    llama: Path,
    adapter: Path,
    caplog: pytest.LogCaptureFixture,
    theirs: str | None,
    ours: str,
    outcome: str,
) -> None:
    set_fields(adapter, base_model_name_or_path=theirs)
    model = Place(str(llama) if ours == "FOLDER" else ours)
    _warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        if outcome == "refused":
            with pytest.raises(BankError, match=r"base_model_name_or_path: .*\(any_base: true, or --any-base\)"):
                check_source(skeleton, None, Place(str(adapter)), model)
        for _ in range(2):  # a difference of names is said once
            check_source(skeleton, None, Place(str(adapter), any_base=outcome == "refused"), model)
    assert len(caplog.records) == (outcome == "warned")
    assert all("base_model_name_or_path" in record.getMessage() for record in caplog.records)


# --------------------------------------------------------------------------- fingerprints


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 3},
        {"lora_alpha": 5},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 3}},
        {"use_dora": True},
        {"lora_bias": True},
        {"alora_invocation_tokens": [1, 2]},
        {"fan_in_fan_out": True},
    ],
)
def test_a_fingerprint_knows_what_changes_the_law(adapter: Path, fields: dict[str, Any]) -> None:
    before = fingerprint(adapter)
    set_fields(adapter, **fields)
    assert fingerprint(adapter) != before


def test_a_plain_adapters_fingerprint_is_what_it_was(adapter: Path) -> None:
    """Rows of data sets written before patterns and variants were taken keep their ids."""
    import hashlib

    weights = (adapter / "adapter_model.safetensors").read_bytes()
    digest = hashlib.sha256(f"adapter_model.safetensors:{len(weights)}".encode() + weights + weights)
    digest.update(b'{"lora_alpha": 4, "r": 2, "use_rslora": false}')
    assert fingerprint(adapter) == digest.hexdigest()[:16]
    before = fingerprint(adapter)
    set_fields(adapter, lora_dropout=0.5, base_model_name_or_path="me/other", rank_pattern=None, use_dora=None)
    assert fingerprint(adapter) == before
