"""Which model types of transformers the engine serves: each built tiny, each held against its own ``forward``.

    python -m tools.model_types [--write] [TYPE ...]

prints the table; with ``--write`` it puts it into ``docs/models.md`` and, for the engine, into
``mpg/models/model_types.json``. Run it when transformers moves. No weights are needed: laws of random ones tell forward
passes apart just as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
# Two float32 passes of the same numbers in another order differ by 1e-5 at most; another arithmetic by 1e-3 and more.
MOST = 1e-4
_LARGEST = 25_000_000  # parameters of a model that is built here
WAYS = ("lean", "general", "joined")

# Sizes by the names that configurations give them; a type has some of these.
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.3,
    "sliding_window": 5, "attention_chunk_size": 8, "moe_intermediate_size": 16, "num_local_experts": 4,
    "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8, "rotary_dim": 4, "image_size": 16, "patch_size": 8, "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
}  # fmt: skip
# What some types need besides, to be built tiny.
OPTIONS: dict[str, dict[str, Any]] = {
    "gemma3": {"vision_config": _VISION, "mm_tokens_per_image": 4},
    "gemma3n_text": {
        "num_hidden_layers": 6, "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 6, "laurel_rank": 4,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2, "intermediate_size": [48] * 6,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 5},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "longcat_flash": {"ffn_hidden_size": 32, "expert_ffn_hidden_size": 16, "moe_topk": 2, "zero_expert_num": 2},
}  # fmt: skip
# Fields that are no arithmetic of a decoder that reads: what is returned, trained, or of other heads.
_NOT_ARITHMETIC = (
    "use_cache", "output_", "return_dict", "is_encoder_decoder", "add_cross_attention", "summary_", "dropout", "pdrop",
    "jitter", "_eps", "eps", "epsilon", "_coef", "initializer", "init_", "is_decoder", "aux_loss", "layerdrop", "_std",
    "classifier", "mtp_",
)  # fmt: skip
_ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
ROPES: dict[str, dict[str, Any]] = {
    "linear": _ROPE,
    "dynamic": _ROPE,
    "yarn": _ROPE,
    "llama3": _ROPE | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": _ROPE | {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 4.0, 6.0, 8.0]},
}
HEADS = {"every head its own keys": 4, "one head of keys": 1}


def config_of(model_type: str, options: Mapping[str, Any] | None = None) -> Any:
    """A tiny configuration of a type. Raises whatever the type's own checks raise."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, given = CONFIG_MAPPING[model_type], OPTIONS.get(model_type, {})
    text = text_kind(kind)
    if text is None:
        return _small(kind, given | dict(options or {}))
    return _small(kind, given | {"text_config": _small(text, options or {})})


def text_kind(kind: Any) -> Any:
    """Of a model that sees or hears besides: the configuration of what reads; else ``None``."""
    text = getattr(kind, "sub_configs", {}).get("text_config")
    return text if text is not None and dataclasses.is_dataclass(text) else None


def _small(kind: Any, options: Mapping[str, Any]) -> Any:
    fields = {each.name for each in dataclasses.fields(kind)}
    given = {kind.attribute_map.get(name, name): value for name, value in SMALL.items()}
    given = {name: value for name, value in given.items() if name in fields}
    if "qk_rope_head_dim" in fields:  # the dimension of a head is the sum of two
        given.pop("head_dim", None)
        given["num_key_value_heads"] = 4
    kinds = None
    with suppress(Exception):
        kinds = getattr(kind(), "layer_types", None)
    if kinds and "layer_types" in fields:  # every kind of layer that the type has
        given["layer_types"] = list(dict.fromkeys(kinds)) * (1 if len(set(kinds)) > 1 else 2)
        given[kind.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(given["layer_types"])
    given |= options
    for name, part in getattr(kind, "sub_configs", {}).items():
        if part is not None and dataclasses.is_dataclass(part) and name not in given:
            given[name] = _small(part, {})
    return kind(**given)


def variants_of(model_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, options) of what changes a type's arithmetic: each switch turned, each factor set, heads, positions."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    kind = text_kind(kind) or kind
    fields = {each.name: str(each.type) for each in dataclasses.fields(kind)}
    heads = kind.attribute_map.get("num_key_value_heads", "num_key_value_heads")
    if heads in fields and "qk_rope_head_dim" not in fields:
        for name, count in HEADS.items():
            yield name, {heads: count}
    if "head_dim" in fields and "qk_rope_head_dim" not in fields:
        yield "wide heads", {"head_dim": 16}
    for name, text in fields.items():
        if any(part in name for part in _NOT_ARITHMETIC):
            continue
        if "bool" in text:
            default = next(each.default for each in dataclasses.fields(kind) if each.name == name)
            value = not default
            kinds = name == "use_sliding_window" and "layer_types" in fields
            extra = {"layer_types": ["sliding_attention", "full_attention"]} if kinds else {}
            yield f"{name}={value}", {name: value} | extra
        elif "float" in text and "dict" not in text and "list" not in text:
            yield f"{name}=0.7", {name: 0.7}
    if "sliding_window" in fields:
        yield "no window", {"sliding_window": None}
    if "num_kv_shared_layers" in fields:
        yield "no shared keys", {"num_kv_shared_layers": 0}
    parameters = None
    with suppress(Exception):
        parameters = getattr(kind(), "rope_parameters", None)
    if isinstance(parameters, dict) and "rope_theta" in parameters:  # one for all kinds of layers
        for name, values in ROPES.items():
            yield f"{name} positions", {"rope_parameters": values | {"rope_type": name}}
        yield "partly rotary", {"rope_parameters": parameters | {"partial_rotary_factor": 0.5}}
    elif isinstance(parameters, dict) and all(isinstance(each, dict) for each in parameters.values()):
        for name, values in ROPES.items():
            each = {kind_of: dict(values) | {"rope_type": name} for kind_of in parameters}
            yield f"{name} positions", {"rope_parameters": each}


def model_of(config: Any, seed: int = 3) -> Any:
    """A model of random weights, norms and biases included, peaked enough for its laws to differ."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(each.numel() for each in AutoModelForCausalLM.from_config(config).parameters())
    if size > _LARGEST:
        raise ValueError(f"{size / 1e6:.0f} million parameters where a tiny one was asked for")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # which start as ones and zeros
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif parameter.numel() > 1 and parameter.std() < 0.05:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


@torch.inference_mode()
def own_laws(model: Any, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Each text alone through the model's own ``forward``; its laws ``[tokens, vocab]``."""
    passes = (model(input_ids=torch.tensor([list(text)]), use_cache=False) for text in texts)
    return [output.logits[0].float().softmax(-1) for output in passes]


@torch.inference_mode()
def lane_laws(model: Any, texts: Sequence[Sequence[int]], prompts: Sequence[int], way: str) -> list[Tensor]:
    """The same laws by the engine's passes: prompts of different lengths, a rollback, chunks, single tokens."""
    from mpg.models.backbone import TransformersBackbone

    backbone = TransformersBackbone(model, way=way)
    longest = max(map(len, texts))
    session = backbone.session(len(texts) + 1, longest + 8)
    lanes, mixes = list(range(len(texts))), torch.zeros(len(texts), 0)
    laws = [torch.zeros(len(text), backbone.head.n_tokens) for text in texts]
    padded = torch.tensor([[*text, *[5] * (longest + 8 - len(text))] for text in texts])

    def feed(starts: list[int], count: int, *, drafts: bool = False) -> None:
        tokens = padded.gather(1, torch.tensor(starts)[:, None] + torch.arange(count))
        hidden = session.append(lanes, mixes, (tokens + 7) % 50 if drafts else tokens, torch.tensor(starts))
        found = session.logits(hidden).softmax(-1)
        for row, (start, text) in enumerate(zip(starts, texts, strict=True)):
            kept = 0 if drafts else max(0, min(count, len(text) - start))
            laws[row][start : start + kept] = found[row, :kept]

    feed([0] * len(texts), max(prompts))
    at = [prompt - 2 for prompt in prompts]
    feed(at, 4, drafts=True)  # rejected: the next pass begins where this one did
    feed(at, 3)
    for step in range(3, 3 + max(len(text) - start for text, start in zip(texts, at, strict=True))):
        feed([min(start + step, longest) for start in at], 1)
    return laws


def difference(config: Any, way: str) -> float:
    """The largest total variation between the engine's laws and the model's own, over all prefixes of three texts.

    Raises:
        NotAModel: transformers itself can't run it. Whatever the engine's pass raises.
    """
    generator = torch.Generator().manual_seed(1)
    prompts = [19, 11, 3]
    texts = [torch.randint(3, 60, (n + 8,), generator=generator).tolist() for n in prompts]
    try:
        model = model_of(config)
        wanted = own_laws(model, texts)
        if not all(bool(law.isfinite().all()) for law in wanted):
            raise ValueError("its laws are not numbers")
        other = own_laws(model, [[*texts[1][:-1], (texts[1][-1] + 7) % 50]])[0]
        if float((other - wanted[1])[:-1].abs().max()) > MOST:
            raise ReadsBothWays()
    except ReadsBothWays:
        raise
    except Exception as error:
        raise NotAModel(one_line(error)) from error
    found = lane_laws(model, texts, prompts, way)
    return max(float((a - b).abs().sum(-1).max()) / 2 for a, b in zip(wanted, found, strict=True))


class NotAModel(Exception):
    """What transformers itself can't build or run."""


class ReadsBothWays(NotAModel):
    """A model whose laws depend on tokens that come later."""


@dataclass
class Found:
    """What came of a type.

    Attributes:
        way: by which it is served; ``None``: it is refused.
        why: it is refused.
        furthest: largest total variation of all variants.
        held: names of the variants that were held. not_with: variants that it is not served with, name -> options.
        layers: kinds of layers that were held.
    """

    way: str | None = None
    why: str = ""
    furthest: float = 0.0
    held: list[str] = field(default_factory=list)
    not_with: dict[str, dict[str, Any]] = field(default_factory=dict)
    layers: set[str] = field(default_factory=set)


def looked_at(model_type: str) -> Found:
    """Try a type, by each way until one holds; then its variants by that way."""
    from mpg.models.served import LEAN

    try:
        config = config_of(model_type)
    except Exception as error:
        return Found(why=f"can't be built tiny: {one_line(error)}")
    if config.is_encoder_decoder:
        return Found(why="is the decoder of an encoder")
    found = Found()
    for way in WAYS if model_type in LEAN else WAYS[1:]:
        try:
            found.furthest = difference(config, _way(way, config))
        except ReadsBothWays:
            return Found(why="is no decoder: what comes later changes what came before")
        except NotAModel as error:
            return Found(why=f"can't be built tiny: {error}")
        except Exception as error:
            found.why = _why(error, config)
            continue
        if found.furthest <= MOST:
            found.way = way
            break
        found.why = f"another law than transformers' own, by {found.furthest:.2f}"
    if found.way is None:
        return found
    found.layers |= _kinds(config)
    for name, options in variants_of(model_type):
        try:
            config = config_of(model_type, options)
            apart = difference(config, _way(found.way, config))
        except Exception as error:
            if isinstance(error, ReadsBothWays) or not _is_of_transformers(error):
                found.not_with[name] = options
            continue
        if apart <= MOST:
            found.held.append(name)
            found.furthest = max(found.furthest, apart)
            found.layers |= _kinds(config)
        else:
            found.not_with[name] = options
    return found


def _way(way: str, config: Any) -> str:
    from mpg.models.served import has_windows

    return "general" if way == "lean" and has_windows(config) else way


def _is_of_transformers(error: Exception) -> bool:
    """Whether a configuration or model could not even be made."""
    from mpg.models.errors import BankError

    return isinstance(error, NotAModel) or (
        not isinstance(error, BankError) and error.__traceback__ is not None and "lane_laws" not in _frames(error)
    )


def _frames(error: Exception) -> list[str]:
    frames, here = [], error.__traceback__
    while here is not None:
        frames.append(here.tb_frame.f_code.co_name)
        here = here.tb_next
    return frames


def _kinds(config: Any) -> set[str]:
    return set(getattr(config.get_text_config(), "layer_types", None) or ())


def _why(error: Exception, config: Any) -> str:
    from mpg.models.errors import BankError

    text = one_line(error)
    states = sorted(_kinds(config) - {"full_attention", "sliding_attention", "chunked_attention"})
    if "state" in text or "recurrent" in text or states:
        what = f" ({', '.join(states)})" if states else ""
        return f"keeps a state{what} that can't be rolled back to where a draft was rejected"
    if isinstance(error, BankError):
        return text.partition(": ")[2] or text
    return f"keeps or reads keys and values in a way of its own ({text})"


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rpartition("ValueError: ")[2]
    return text[:140].rstrip(" .,;:(") or type(error).__name__


def type_names() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def record_of(found: Mapping[str, Found]) -> dict[str, Any]:
    """What the engine reads of the table, see :mod:`mpg.models.served`."""
    import transformers

    served = {name: each for name, each in found.items() if each.way is not None}
    return {
        "transformers": transformers.__version__,
        "served": {name: each.way for name, each in served.items()},
        "layers": sorted(set().union(*(each.layers for each in served.values()))),
        "not_with": {name: list(each.not_with.values()) for name, each in served.items() if each.not_with},
        "refused": {name: each.why for name, each in found.items() if each.way is None},
    }


def table_of(found: Mapping[str, Found]) -> str:
    import transformers

    lines = [f"Made with transformers {transformers.__version__}: {sum(f.way is not None for f in found.values())} "
             f"types served, {sum(f.way is None for f in found.values())} refused.", "",
             "| type | pass | furthest | held with | refused with |", "|---|---|---|---|---|"]  # fmt: skip
    for name, each in found.items():
        if each.way is not None:
            held, not_with = ", ".join(each.held), ", ".join(each.not_with) or "-"
            lines.append(f"| `{name}` | {each.way} | {each.furthest:.0e} | {held} | {not_with} |")
    lines += ["", "| refused | why |", "|---|---|"]
    lines += [f"| `{name}` | {each.why.replace('|', '/')} |" for name, each in found.items() if each.way is None]
    return "\n".join(lines)


def main() -> None:
    from transformers.utils import logging

    from mpg.models.served import FILE

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("types", nargs="*", metavar="TYPE", help="these alone; none: all")
    parser.add_argument("--write", action="store_true", help="into docs/models.md and mpg/models/model_types.json")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tiny products gain nothing from more
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    found = {name: looked_at(name) for name in options.types or type_names()}
    table = table_of(found)
    print(table)
    if options.write and not options.types:
        FILE.write_text(json.dumps(record_of(found), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        before, begin, rest = DOCS.read_text(encoding="utf-8").partition("<!-- model types -->\n")
        _, end, after = rest.partition("<!-- end of model types -->\n")
        DOCS.write_text(before + begin + table + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
