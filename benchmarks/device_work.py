"""What each decoder asks of a device a token-step, counted without one: ``python -m benchmarks.device_work``.

The engine runs on a pretended device (:mod:`benchmarks.pretend_device`), so it goes the ways that it would go on a GPU.
The model is a Llama of 32 layers and a vocabulary of 128,256 in bfloat16, as narrow as can be: what is counted does not
depend on widths. A *token-step* is a token for each of the rows; counts are the slope between runs of few and of many
tokens, prompts and ends left out.

- *waits*: how often the host waits for a value of the device's, or for a size that values decide;
- *uploads*: data sent to the device in such a way that the host waits until it is there;
- *operators*: what torch dispatches that is no view of something: a kernel each, or a few. ``rms_norm`` and
  ``scaled_dot_product_attention`` count as the one that CUDA has for them;
- *widths*: how many key positions attention looked at in the last steps: few different ones can be captured as graphs.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.pretend_device import Work, onto, pretending
from benchmarks.random_llama import adapter, bank_of, llama, sharpen
from mpg import DecoderSettings, ModelBank, Request, decode

SETTINGS: dict[str, dict[str, Any]] = {
    "reference": {"name": "reference"},
    "mod": {"name": "mod"},
    "mod, top-p .95": {"name": "mod", "top_p": 0.95},
    "scr-exact, sum": {"name": "scr-exact"},
    "scr-exact, sum, top-p .95": {"name": "scr-exact", "top_p": 0.95},
    "scr-exact, product, top-p .95": {"name": "scr-exact", "aggregate": "product", "top_p": 0.95},
    "soup": {"name": "soup"},
    "routing": {"name": "routing"},
    "scr": {"name": "scr"},
}
# Of a multiple of the default chunk each, so that decoders which draft chunks end with one.
FEW, MANY = 8, 24
# B scaled so that components are as far from the reference as those of trained adapters: what `scale_for` finds.
_SCALE = 0.017
_PROMPT = 20


@dataclass(frozen=True)
class Count:
    """Of one decoder, a token-step.

    Attributes:
        by_name, by_place: operators that are no views, the most first.
        wait_places, upload_places: where the host waits, and sends.
        widths: key positions of attention, over the whole run of ``MANY`` tokens.
    """

    waits: float
    uploads: float
    operators: float
    by_name: dict[str, float]
    by_place: dict[str, float]
    wait_places: dict[str, float]
    upload_places: dict[str, float]
    widths: list[int]


def bank(*, layers: int = 32, vocab: int = 128256, adapters: int = 3, first: int = 0) -> ModelBank:
    """Narrow random models on the pretended device, adapters over all linear layers from ``first`` up."""
    narrow = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 2}
    changes = narrow | {"head_dim": 16, "num_hidden_layers": layers, "vocab_size": vocab}
    model = llama("1B", torch.bfloat16, "cpu", **changes)
    sharpen(model)
    loras = [adapter(model, seed=i, scale=_SCALE, first=first) for i in range(adapters)]
    return bank_of(onto(model), loras)


def counted(models: ModelBank, settings: dict[str, Any], *, batch: int, work: Work) -> Count:
    """One decoder's. ``work``: of the running :func:`pretending`."""
    _, few, many = (_run(models, settings, batch, n, work) for n in (1, FEW, MANY))  # first what is made once
    operators = _slope(few.operators, many.operators)
    names, places = Counter[str](), Counter[str]()
    for (name, place), number in operators.items():
        names[name] += number  # type: ignore[assignment]
        places[place] += number  # type: ignore[assignment]
    waits, uploads = _slope(few.waits, many.waits), _slope(few.uploads, many.uploads)
    return Count(
        waits=sum(waits.values()),
        uploads=sum(uploads.values()),
        operators=sum(operators.values()),
        by_name=_sorted(names),
        by_place=_sorted(places),
        wait_places=_sorted(waits),
        upload_places=_sorted(uploads),
        widths=sorted(many.widths),
    )


def _run(models: ModelBank, settings: dict[str, Any], batch: int, n: int, work: Work) -> Work:
    for each in (work.operators, work.waits, work.uploads, work.widths):
        each.clear()
    made = DecoderSettings(**settings | {"max_new_tokens": n})
    weights = dict.fromkeys(models.attributes, 1 / len(models.attributes)) if made.facts.weighted else {}
    asked = [Request([5 + i, *range(3, 2 + _PROMPT)], weights, seed) for seed, i in enumerate(range(batch))]
    for done in decode(models, asked, made, batch_size=batch):
        assert len(done.token_ids) == n
    return Work(*(each.copy() for each in (work.operators, work.waits, work.uploads, work.widths)))


def _slope(few: Counter[Any], many: Counter[Any]) -> dict[Any, float]:
    found = {key: (many[key] - few[key]) / (MANY - FEW) for key in few.keys() | many.keys()}
    return {key: number for key, number in found.items() if number}


def _sorted(numbers: dict[str, float]) -> dict[str, float]:
    return dict(sorted(numbers.items(), key=lambda item: -item[1]))


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--adapters", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--decoder", action="append", choices=SETTINGS, help="this one only; several times: these")
    parser.add_argument("--top-third", action="store_true", help="adapters of the upper third of the layers: a trunk")
    parser.add_argument("--where", action="store_true", help="the lines that ask for it")
    parser.add_argument("--json", action="store_true", help="everything, and no table")
    options = parser.parse_args()
    first = options.layers - max(1, options.layers // 3) if options.top_third else 0
    found = {}
    with pretending() as work:
        models = bank(layers=options.layers, vocab=options.vocab, adapters=options.adapters, first=first)
        if not options.json:
            print(f"{'a token-step':32}{'waits':>8}{'uploads':>9}{'operators':>11}  widths")
        for name in options.decoder or SETTINGS:
            count = found[name] = counted(models, SETTINGS[name], batch=options.batch, work=work)
            if not options.json:
                _print(name, count, where=options.where)
    if options.json:
        print(json.dumps({name: asdict(count) for name, count in found.items()}))


def _print(name: str, count: Count, *, where: bool) -> None:
    widths = " ".join(map(str, count.widths[-4:]))
    print(f"{name:32}{count.waits:8.2f}{count.uploads:9.2f}{count.operators:11.0f}  {widths}", flush=True)
    if where:
        for kind in ("wait_places", "upload_places", "by_name", "by_place"):
            told = "; ".join(f"{key} {number:.4g}" for key, number in list(getattr(count, kind).items())[:40])
            print(f"    {kind.replace('_', ' ')}: {told}")


if __name__ == "__main__":
    main()
