"""Steering vectors of opposite poles, as adapters: ``python -m tools.steering --data ../shared/data``.

What people use today in place of trained adapters, see :mod:`tools.steering_vectors`.

Opposite poles are each other's negative. All vectors have one length: at strength 1 a tenth
(:data:`tools.steering_vectors.SHARE`) of what the residual stream is long after that layer, the mean over answers'
tokens. The layer is chosen by generation: each pole alone at several strengths, judged by the embedded classifier; it
is the one with the best mean at no more than :data:`DEARER` times the bare model's perplexity. What pairs say of all
layers, and the candidates, stay in ``--work``, in files whose names tell what they were made from: model, pairs and
options, the vectors themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from evaluation.statistics.paired import best_at
from evaluation.tables import aligned
from mpg.models.embedded import SMOLLM2
from personas import KNOWN
from personas.preferences import MBTI_FILE
from personas.prompts import canonical_json, read_prompts
from pipeline.store.files import write_bytes
from tools.shipped_adapters import CARD_FILE, LICENCES, pairs_of, provenance
from tools.steering_vectors import MOST_PAIRS, MOST_TOKENS, SHARE, Differences, differences, save_vector, scaled

WORKFLOWS = Path(__file__).parent.parent / "workflows"
OUTPUT = WORKFLOWS / "steering"
POLES = (("E", "I"), ("S", "N"), ("T", "F"), ("J", "P"))
# Times the bare model's perplexity that the choice of a layer allows: what docs/adapters.md asks of adapters.
DEARER = 1.1
LAYERS = (10, 15, 20)
STRENGTHS = (1.0, 2.0, 4.0)
# Of the project's prompts: from the first 40, on which the adapters' choices were made, too.
PROMPTS = slice(0, 40, 8)

# How a pole writes, at each strength.
_DECODER = {"name": "soup", "max_new_tokens": 72, "temperature": 0.8, "top_p": 0.95}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """Texts of one pole, of one layer at one strength; the bare model's: layer and strength 0.

    Attributes:
        adherence: mean score by the embedded classifier. log_prob: of all texts under the bare model, nats.
    """

    layer: int
    strength: float
    pole: str
    n: int
    adherence: float
    log_prob: float
    n_tokens: int


def write_and_judge(
    model_id: str, folders: Mapping[str, Path], prompts: Sequence[str], layer: int, strengths: Sequence[float]
) -> list[Cell]:
    """Write with each pole alone at each strength, and judge. Args: folders: pole -> its adapter, all of one layer."""
    from evaluation.judges.classifier import ClassifierJudge
    from mpg import DecoderSettings, ModelBank, Request, decode
    from mpg.decoding.seeding import derived_seed
    from mpg.models.chat import encode_chat
    from mpg.models.dtype import pick_dtype
    from mpg.models.ends import answer_text

    bank = ModelBank.load(model_id, folders, dtype=getattr(torch, pick_dtype("auto")))
    plan = [(pole, strength) for pole in folders for strength in strengths]
    requests, settings = [], []
    for pole, strength in plan:
        for i, prompt in enumerate(prompts):
            ids = encode_chat(bank.tokenizer, [{"role": "user", "content": prompt}])
            requests.append(Request(ids, {pole: 1.0}, derived_seed(0, i, list(folders).index(pole))))
            settings.append(DecoderSettings(strength=strength, **_DECODER))
    done = list(decode(bank, requests, settings, batch_size=64))
    judge, cells = ClassifierJudge.load(), []
    for k, (pole, strength) in enumerate(plan):
        mine = done[k * len(prompts) : (k + 1) * len(prompts)]
        texts = [answer_text(bank.tokenizer, each.token_ids, bank.eos_ids) for each in mine]
        scores = [each.score for each in judge.score(texts, pole) if each.score is not None]
        log_prob, n_tokens = math.fsum(e.log_prob_reference for e in mine), sum(len(each.token_ids) for each in mine)
        cells.append(Cell(layer, strength, pole, len(scores), fmean(scores), log_prob, n_tokens))
    return cells


def curve_of(cells: Sequence[Cell], layer: int) -> list[dict[str, float]]:
    """A layer's points over all poles, by strength: ``strength``, ``adherence``, ``perplexity``, ``n``."""
    points = []
    for strength in sorted({cell.strength for cell in cells if cell.layer == layer}):
        mine = [cell for cell in cells if (cell.layer, cell.strength) == (layer, strength)]
        loss = -math.fsum(cell.log_prob for cell in mine) / sum(cell.n_tokens for cell in mine)
        points.append({"strength": strength, "adherence": fmean(cell.adherence for cell in mine),
                       "perplexity": math.exp(loss), "n": sum(cell.n for cell in mine)})  # fmt: skip
    return points


def best_layer(cells: Sequence[Cell], bare: Mapping[str, float]) -> tuple[int, dict[int, float]]:
    """The layer with the best mean adherence within the perplexity allowed, and what each has there.

    Args:
        bare: the bare model's point, from which every layer's curve begins.
    """
    found = {}
    for layer in sorted({cell.layer for cell in cells}):
        points = [bare, *curve_of(cells, layer)]
        scores = [point["adherence"] for point in points]
        on = best_at([point["perplexity"] for point in points], scores, DEARER * bare["perplexity"])
        found[layer] = math.fsum(share * scores[i] for i, share in on.shares)
    return max(found, key=lambda layer: found[layer]), found


def main(argv: Sequence[str] | None = None) -> int:
    """Make the vectors, choose the layer, write the adapters and print what the choice was made by."""
    from mpg.models.chat import answer_start
    from mpg.models.fingerprint import revision_of
    from mpg.models.hub import Place
    from mpg.models.pretrained import load_tokenizer, load_weights

    parser = argparse.ArgumentParser(prog="python -m tools.steering", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {MBTI_FILE}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the adapters")
    parser.add_argument("--work", type=Path, default=Path("out/steering"), help="of what a second call needs not make")
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--layers", nargs="*", type=int, default=list(LAYERS), help="to choose from, the first being 0")
    parser.add_argument("--strengths", nargs="*", type=float, default=list(STRENGTHS))
    parser.add_argument("--tokens", type=int, default=MOST_TOKENS, help="pairs of more are left out")
    options = parser.parse_args(argv)
    if not (options.data / MBTI_FILE).is_file():
        parser.error(f"--data {options.data}: no {MBTI_FILE} there; give the folder that holds it")
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer, model = load_tokenizer(Place(options.model)), load_weights(Place(options.model), torch.float32)
    start = answer_start(tokenizer)
    kept = _Kept(
        options.work, [revision_of(Place(options.model)), tokenizer.get_chat_template(), tokenizer.get_vocab()]
    )
    known = {pole: _known(options, kept, model, tokenizer, pole) for pole, _ in POLES}

    def write(layer: int, pole: str, opposite: str) -> dict[str, Path]:
        vector, written = scaled(known[pole], layer), {}
        for name, sign in ((pole, 1.0), (opposite, -1.0)):
            written[name] = options.work / f"layer-{layer}" / name
            save_vector(sign * vector, layer, written[name], model=model, model_id=options.model, start=start)
        return written

    prompts = [each.messages[-1].content for each in read_prompts(WORKFLOWS / "prompts.jsonl").prompts[PROMPTS]]
    cells = list[Cell]()
    for layer in options.layers:
        folders = {name: path for pair in POLES for name, path in write(layer, *pair).items()}
        logger.info("layer %d: %d texts", layer, len(folders) * len(options.strengths) * len(prompts))
        cells += _cells(options, kept, f"layer-{layer}", folders, prompts, layer, options.strengths)
    bare = _bare(options, kept, {"E": options.work / f"layer-{cells[0].layer}" / "E"}, prompts)
    layer, at = best_layer(cells, bare)
    print(_table(cells, bare, at))
    for pole, opposite in POLES:
        for name, other in ((pole, opposite), (opposite, pole)):
            folder = options.output / name
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(options.work / f"layer-{layer}" / name, folder)
            card = _card(options, name, other, layer, known[pole], [bare, *curve_of(cells, layer)])
            (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    return 0


@dataclass(frozen=True)
class _Kept:
    """Files of what was made once, each named by what it was made from: with another option nothing is taken for it.

    Attributes:
        model: what tells a model from another, its tokenizer included.
    """

    folder: Path
    model: Sequence[Any]

    def file(self, name: str, suffix: str, *made_from: Any) -> Path:
        """A name's file: made from the model and more, as JSON has it."""
        content = canonical_json([*self.model, *made_from]).encode()
        return self.folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.{suffix}"


def _known(options: argparse.Namespace, kept: _Kept, model: Any, tokenizer: Any, pole: str) -> Differences:
    """Of a pole and its opposite; read once."""
    from safetensors.torch import load_file, save

    pairs = provenance(MBTI_FILE, options.data)["sha256"]
    file = kept.file(pole, "safetensors", pole, pairs, options.tokens, MOST_PAIRS)
    if not file.is_file():
        logger.info("%s: reading pairs", pole)
        found = differences(model, tokenizer, pairs_of(pole, options.data)[0], most_tokens=options.tokens)
        tensors = {"mean": found.mean, "lengths": found.lengths, "n": torch.tensor(found.n_pairs)}
        write_bytes(save(tensors), file)
    there = load_file(file)
    return Differences(there["mean"], there["lengths"], int(there["n"]))


def _cells(
    options: argparse.Namespace,
    kept: _Kept,
    name: str,
    folders: Mapping[str, Path],
    prompts: Sequence[str],
    layer: int,
    strengths: Sequence[float],
) -> list[Cell]:
    """As :func:`write_and_judge`; written once with the same vectors, prompts, strengths, decoder and judge."""
    from evaluation.judges.classifier_weights import SHIPPED, read_weights

    vectors = {pole: hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
               for pole, folder in folders.items()}  # fmt: skip
    judge = read_weights(SHIPPED)[1]["sha256"]
    file = kept.file(name, "json", vectors, list(prompts), layer, list(strengths), _DECODER, judge)
    if not file.is_file():
        found = write_and_judge(options.model, folders, prompts, layer, strengths)
        write_bytes(json.dumps([asdict(each) for each in found]).encode(), file)
    return [Cell(**each) for each in json.loads(file.read_text("utf-8"))]


def _bare(
    options: argparse.Namespace, kept: _Kept, folders: Mapping[str, Path], prompts: Sequence[str]
) -> dict[str, float]:
    """The bare model's point: opposite poles add up to 1 on any text, so its mean over all eight is a half."""
    (cell,) = _cells(options, kept, "bare", folders, [*prompts] * 4, 0, [1e-6])
    return {"strength": 0.0, "adherence": 0.5, "perplexity": math.exp(-cell.log_prob / cell.n_tokens), "n": cell.n}


def _table(cells: Sequence[Cell], bare: Mapping[str, float], at: Mapping[int, float]) -> str:
    """Adherence / perplexity of each layer at each strength, and what it has within the perplexity allowed."""
    curves = {layer: curve_of(cells, layer) for layer in at}
    strengths = [point["strength"] for point in next(iter(curves.values()))]
    rows = [
        [f"{layer}", *(f"{p['adherence']:.3f} / {p['perplexity']:.2f}" for p in curve), f"{at[layer]:.3f}"]
        for layer, curve in curves.items()
    ]
    n = f"{curves[next(iter(curves))][0]['n']} texts a cell; the bare model: {bare['perplexity']:.2f}"
    limit = f"at {DEARER * bare['perplexity']:.2f}"
    return f"{aligned(['layer', *(f'strength {s:g}' for s in strengths), limit], rows)}\n{n}"


def _card(
    options: argparse.Namespace, name: str, opposite: str, layer: int, found: Differences, curve: Sequence[Any]
) -> dict[str, Any]:
    length = float(SHARE * found.lengths[layer])
    return {
        "name": name,
        "description": KNOWN[name].description,
        "base_model": options.model,
        "license": LICENCES[MBTI_FILE],
        "data": provenance(MBTI_FILE, options.data),
        "recipe": {
            "objective": "contrastive activation addition (arXiv 2312.06681): mean difference of the residual stream "
            "over answers' tokens",
            "layer": layer,
            "train_pairs": found.n_pairs,
            "max_pair_tokens": options.tokens,
            "from_answer": True,
            "norm": length,
            "strength_1": f"adds a vector {SHARE:g} times as long as the residual stream is after layer {layer}",
            "norm_of_difference": float(found.mean[layer].norm()),
            "opposite": f"{opposite}: its negative",
        },
        "chosen_by": {
            "measure": f"mean adherence at {DEARER:g} times the bare model's perplexity, all poles together",
            "layers": options.layers,
            "curve": list(curve),
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
