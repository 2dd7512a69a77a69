"""How each kind of adapter that PEFT can write is taken: ``python -m tools.adapter_variants [--write]``.

Each is made tiny, and looked at without weights, as ``mpg check`` does. One that is taken is held against PEFT's own
forward pass, in float32: prompts of different lengths run together, and then token by token. The table is printed; with
``--write`` it goes into docs/adapters.md. Exit status 1 where a law that is taken for PEFT's differs from it.
"""

from __future__ import annotations

import argparse
import logging
import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpg.laws.layout import Layout
from mpg.models.adapter_files import read_lora
from mpg.models.backbone import TransformersBackbone
from mpg.models.errors import BankError
from mpg.models.hub import Place, adapter_folder
from mpg.models.lanes import BankSession
from mpg.models.load import check_source
from mpg.models.pretrained import skeleton_of
from tools.adapter_makers import INVOCATION, VOCABULARY, Variant, base_model, make, variants

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "adapters.md"
BEGIN, END = "<!-- adapter variants -->", "<!-- adapter variants end -->"
# Largest difference of two laws that counts as rounding, in total variation.
TOLERANCE = 1e-5
_LENGTHS = (9, 5, 14)
_NEW = 3  # tokens that are then fed one by one


@dataclass(frozen=True)
class Row:
    """What came of a variant: the largest total variation to PEFT's law, or the error that refuses it."""

    name: str
    distance: float | None
    refusal: str = ""

    @property
    def verdict(self) -> str:
        return "refused" if self.distance is None else "supported"


def row_of(variant: Variant, folder: Path) -> Row:
    """Make a variant in an empty folder and see how it is taken."""
    base = folder / "base"
    base_model(variant.base).save_pretrained(base)
    own = make(variant, base, folder / "adapter")
    place, model = Place(str(own)), Place(str(base))
    try:
        if adapter_folder(place) is None:  # a whole model
            backbone, adapter, invocation = TransformersBackbone(_load(own)), own / "adapter", ()
        else:
            fused = variant.base.endswith("+mha")
            check_source(base_model(variant.base).to("meta") if fused else skeleton_of(model), None, place, model)
            lora = read_lora(own)
            backbone, adapter, invocation = TransformersBackbone(_load(base), [lora]), own, lora.invocation
    except BankError as error:
        return Row(variant.name, None, _said(str(error), own))
    return Row(variant.name, _distance(_peft(base, adapter), backbone, invocation))


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _peft(base: Path, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(_load(base), str(adapter)).eval()


@torch.inference_mode()
def _distance(theirs: Any, backbone: TransformersBackbone, invocation: Sequence[int]) -> float:
    """The largest total variation between next-token laws, over all positions of all prompts."""
    generator, branch = torch.Generator().manual_seed(3), backbone.n_branches - 1
    texts, prompts = [], []
    for length in _LENGTHS:
        prompt = torch.randint(INVOCATION[-1] + 1, VOCABULARY, (length,), generator=generator).tolist()
        # Twice, where there is room: it is the last that counts.
        for at in (1, length - 4) if invocation else ():
            prompt[at : at + len(invocation)] = invocation
        prompts.append(prompt)
        texts.append(prompt + torch.randint(INVOCATION[-1] + 1, VOCABULARY, (_NEW,), generator=generator).tolist())
    layout = Layout(("it",), (branch,), (0,))
    used = sorted({0, branch})
    rooms: dict[str, Any] = {"needs": [used] * len(texts), "vocab_size": backbone.head.n_tokens}
    session = BankSession([backbone], layout, len(texts), max(_LENGTHS) + _NEW, **rooms)
    for prompt in prompts:
        session.add_row(used, prompt_of=lambda _, prompt=prompt: prompt)
    entries = session.pick([(row, branch) for row in range(len(texts))])
    ids = torch.zeros(len(texts), max(_LENGTHS), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    states = session.append(entries, ids, torch.zeros(len(texts), dtype=torch.long))
    laws = [[_law(states.logits(torch.tensor([row]), at)) for at in range(len(p))] for row, p in enumerate(prompts)]
    starts = torch.tensor([len(prompt) for prompt in prompts])
    for step in range(_NEW):
        token = torch.tensor([[text[len(prompt) + step]] for text, prompt in zip(texts, prompts, strict=True)])
        states = session.append(entries, token, starts + step)
        for row, law in enumerate(_law(states.logits(slice(None), 0))):
            laws[row].append(law[None])
    worst = 0.0
    for text, prompt, law in zip(texts, prompts, laws, strict=True):
        how: dict[str, Any] = {}
        if invocation:  # as PEFT finds it, in the prompt alone
            from peft.tuners.lora.variants import calculate_alora_offsets

            (offset,) = calculate_alora_offsets(theirs.peft_config, "default", torch.tensor([prompt]))
            how["alora_offsets"] = [offset + _NEW]
        right = _law(theirs(input_ids=torch.tensor([text]), **how).logits[0])
        worst = max(worst, float((torch.cat(law) - right).abs().sum(-1).max()) / 2)
    return worst


def _law(logits: Tensor) -> Tensor:
    return logits.double().softmax(-1)


def _said(error: str, folder: Path) -> str:
    """An error without the paths of the place where it was made."""
    return error.replace(str(folder), "FOLDER").removeprefix("adapter FOLDER: ")


def rows() -> list[Row]:
    """The whole table."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own remarks on its rarer kinds
        return [row_of(variant, Path(scratch) / str(index)) for index, variant in enumerate(variants())]


def table(found: Sequence[Row]) -> str:
    """In Markdown."""
    lines = ["| adapter | taken? | largest total variation to PEFT's law, or what is said |", "|---|---|---|"]
    for row in found:
        said = f"`{row.refusal.replace('|', chr(92) + '|')}`" if row.distance is None else f"{row.distance:.0e}"
        lines.append(f"| {row.name} | {row.verdict} | {said} |")
    return "\n".join(lines)


def verdicts(document: str) -> dict[str, str]:
    """Name -> verdict, of the table in a document."""
    inside = document.partition(BEGIN)[2].partition(END)[0]
    return dict(re.findall(r"^\| (?!adapter)([^|]+) \| (\w+) \|", inside, re.MULTILINE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="Put the table into docs/adapters.md.")
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    found = rows()
    print(table(found))
    if options.write:
        before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{rest.partition(END)[2]}", "utf-8")
    return 1 if any(row.distance is not None and not row.distance < TOLERANCE for row in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
