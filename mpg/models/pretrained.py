"""What transformers loads of a model, each thing with an error in one line: configuration, tokenizer, weights.

Files are looked at before they are believed: transformers draws at random what a file lacks, and takes numbers of any
kind for weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mpg.models.embedded import resolve
from mpg.models.errors import BankError
from mpg.models.hub import Place, PlaceError, hub_errors, one_line
from mpg.models.served import check_config
from mpg.models.spanning import spread

_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
# Numbers that are weights as they stand; integers and 8-bit floats are quantized ones, or none (masks, positions).
_KINDS = frozenset({"F64", "F32", "F16", "BF16"})
# What files of older versions hold beside the weights, computed anew since: masks, positions, frequencies; and the
# value head of a reinforcement learner, which no law of a text depends on.
_NO_WEIGHTS = re.compile(
    r"(^|\.)(attn|attention|self_attn)\.(bias|masked_bias|causal_mask)$|(^|\.)(position_ids|inv_freq)$|^v_head\."
)


def config_of(place: Place) -> Any:
    """A model's configuration. Raises BankError: it can't be had, or is of a model that is not served."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    path, where = _arguments(place)
    with hub_errors(place):
        try:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False, **where)
            config.get_text_config()
        except OSError:
            raise
        except Exception as error:  # a damaged file makes transformers raise anything
            raise BankError(f"{place}: its config.json is of no model known here ({one_line(error)})") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BankError(f"model {place}: type {config.model_type!r} is no causal language model; give one")
    check_config(config, str(place), untested=place.untested)
    return config


def skeleton_of(place: Place) -> Any:
    """A model without weights, from its configuration alone, on ``meta``.

    Raises:
        BankError: it can't be had or is not served, or its files of weights are damaged.
    """
    from transformers import AutoModelForCausalLM

    config = config_of(place)
    check_files(place)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:  # sizes that do not go together
        raise BankError(f"{place}: its config.json is of no model ({one_line(error)}); fetch it again") from error


def load_tokenizer(place: Place) -> Any:
    """The tokenizer of a model. Raises BankError: it can't be had."""
    from transformers import AutoTokenizer

    path, where = _arguments(place)
    with hub_errors(place):
        try:
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **where)
        except OSError:
            raise
        except Exception as error:
            raise BankError(f"{place}: its tokenizer can't be loaded ({one_line(error)})") from error


def load_weights(
    place: Place,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    room: dict[torch.device, int] | None = None,
) -> Any:
    """A model, in eval mode.

    Args:
        room: the devices that it may span, see :func:`mpg.models.spanning.spread`; ``None``: all is on ``device``.

    Raises:
        BankError: it can't be had or is not served; files that are damaged, or are not all that it is made of.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    path, where = _arguments(place)
    config_of(place)
    check_files(place)
    try:
        with hub_errors(place):
            model, info = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
                **where,
            )
    except PlaceError as error:
        raise type(error)(f"model {error} (safetensors only)") from error
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, ImportError, AssertionError) as error:
        raise BankError(f"model {place}: its weights can't be loaded ({one_line(error)}); fetch it again") from error
    _check_weights(place, info)
    if place.folder is None and not place.is_embedded and (config := place.file("config.json")) is not None:
        _check_folder(place, config.parent)  # what has just been fetched
    # Of its files' own: what the engine reads of a pass is always the same.
    model.config.return_dict, model.config.output_attentions, model.config.output_hidden_states = True, False, False
    return (model.to(device) if room is None else spread(model, room, str(place))).eval()


def _check_weights(place: Place, info: Any) -> None:
    """Raise BankError where what was loaded is not what the model is made of."""
    wrong = [each[0] if isinstance(each, tuple) else each for each in info["mismatched_keys"]]
    if wrong:
        raise BankError(f"model {place}: {_named(wrong)} of other shapes than its config.json says; fetch it again")
    if info["missing_keys"]:
        raise BankError(
            f"model {place}: its files lack {_named(info['missing_keys'])}: they would be drawn at random; fetch it "
            f"again, or give a causal language model"
        )
    unexpected = [name for name in info["unexpected_keys"] if not _NO_WEIGHTS.search(name)]
    if unexpected and not place.untested:
        raise BankError(
            f"model {place}: its files hold {_named(unexpected)} that its type has no use for: they "
            f"are of another model; give the right one, or set model.untested: true if you know better"
        )


def _named(keys: Sequence[str]) -> str:
    names = sorted(keys)
    return f"{len(names)} weight{'s' * (len(names) > 1)} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"


def check_files(place: Place) -> None:
    """Look at the heads of a local model's files. Raises BankError: one is missing, damaged, or holds no weights."""
    if place.folder is not None:
        _check_folder(place, place.folder)


def _check_folder(place: Place, folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for file in _files(place, folder):
        try:
            with safe_open(file, framework="pt") as opened:
                kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise BankError(f"model {place}: {file.name} can't be read ({one_line(error)}); fetch it again") from error
        strange = {name: kind for name, kind in kinds.items() if kind not in _KINDS and name.endswith("weight")}
        if strange:
            name, kind = next(iter(strange.items()))
            raise BankError(
                f"model {place}: {file.name}: {name} is {kind}, as quantized weights are; give the model in bfloat16, "
                f"float16 or float32"
            )


def _files(place: Place, folder: Path) -> list[Path]:
    """The files that transformers reads weights from."""
    if (folder / _WEIGHTS).exists() or not (folder / _INDEX).exists():
        if not any(folder.glob("*.safetensors")):
            raise BankError(f"model {place}: no *.safetensors there; give a model saved as safetensors")
        return [folder / _WEIGHTS] if (folder / _WEIGHTS).exists() else sorted(folder.glob("*.safetensors"))
    try:
        names = set(json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{_INDEX} can't be read ({type(error).__name__}: {one_line(error)})"
        raise BankError(f"model {place}: {what}; fetch it again") from error
    missing = sorted(str(name) for name in names if not (folder / str(name)).is_file())
    if missing:
        raise BankError(f"model {place}: {missing[0]}, which {_INDEX} names, is not there; fetch it again")
    return sorted(folder / str(name) for name in names)


def _arguments(place: Place) -> tuple[str, dict[str, Any]]:
    """What ``from_pretrained`` takes: a path or id, and where in it."""
    if place.is_embedded:
        return resolve(place.source), {}
    if place.folder is not None:
        return str(place.folder), {}
    found: dict[str, Any] = {"revision": place.revision, "subfolder": place.subfolder}
    found |= {"local_files_only": True} if place.cached_only else {}
    return place.source, {name: value for name, value in found.items() if value is not None}
