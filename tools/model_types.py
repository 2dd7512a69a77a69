"""Which model types of transformers the engine serves: each built tiny, each held against its own ``forward``.

    python -m tools.model_types [--write] [TYPE ...]

prints the table; with ``--write`` it puts it into ``docs/models.md`` and, for the engine, into
``mpg/models/model_types.json``. Run it when transformers moves. No weights are needed: laws of random ones tell forward
passes apart just as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpg.models.errors import BankError
from mpg.models.hub import Place
from mpg.models.pretrained import load_weights
from tools.tiny_models import config_of, model_of, variants_of

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
# Two float32 passes of the same numbers in another order differ by 1e-5 at most; another arithmetic by 1e-3 and more.
MOST = 1e-4
WAYS = ("lean", "general", "joined")


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
    problem = loading_problem(config)
    if problem is not None:
        return Found(why=f"can't be loaded from a folder that it saved itself: {problem}")
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


def loading_problem(config: Any) -> str | None:
    """Why a model that is saved to a folder can't be loaded again, as a bank does; ``None``: it can."""
    with tempfile.TemporaryDirectory() as folder:
        model_of(config).save_pretrained(folder)
        try:
            load_weights(Place(folder, untested=True), torch.float32)
        except BankError as error:
            return one_line(error).replace(folder, "")
    return None


def _way(way: str, config: Any) -> str:
    from mpg.models.served import has_windows

    return "general" if way == "lean" and has_windows(config) else way


def _is_of_transformers(error: Exception) -> bool:
    """Whether a configuration or model could not even be made."""
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
