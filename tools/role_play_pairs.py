"""What the role-play pairs teach: who somebody is, or how a longer answer reads?

    python -m tools.role_play_pairs --data ../shared/data

Of held-out pairs of ``profile`` and ``personality``, the share in which the chosen answer is ranked first: by its
length, by the judge ``persona-match``, and by the shipped adapter's implicit reward, under the pair's own persona and
under that of another pair. What an adapter ranks as well under another's persona it did not learn from the persona.
Last, the share in which the judge finds the chosen answer nearer to its persona than another pair's chosen answer is:
what there is in the answers to learn a persona by.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation.items import Item
from evaluation.judges.persona_match import PersonaMatchJudge
from evaluation.tables import aligned
from mpg.models.embedded import SMOLLM2
from mpg.train.rewards import adapter_report
from personas import ROLE_PLAY
from personas.preferences import PreferencePair
from pipeline.job.model import SHIPPED_ADAPTERS
from tools.shipped_adapters import MOST_MEASURED, pairs_of

_MAX_TOKENS = 512


def of_another(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Each pair's answers under the persona of the next pair with another one; of one persona alone: none."""
    moved = []
    for index, pair in enumerate(pairs):
        others = (each.system for each in (*pairs[index + 1 :], *pairs[:index]) if each.system != pair.system)
        system = next(others, None)
        if system is not None:
            moved.append(replace(pair, system=system))
    return moved


def against_another(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Each pair with the chosen answer of the pair half of them further on for its rejected one."""
    n = len(pairs)
    return [replace(each, rejected=pairs[(index + n // 2) % n].chosen) for index, each in enumerate(pairs)]


def said_of(pair: PreferencePair, attribute: str) -> str:
    """The persona's profile or personality, from the system message that it stands in."""
    return pair.system.partition(f"\n{attribute.capitalize()}: ")[2].partition("\n")[0]


def ranked(chosen: Sequence[float], rejected: Sequence[float]) -> float:
    """Share of pairs whose chosen answer has more, equals half."""
    difference = np.asarray(chosen, dtype=float) - np.asarray(rejected, dtype=float)
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def by_length(pairs: Sequence[PreferencePair]) -> float:
    """Share of pairs whose chosen answer has more words."""
    return ranked([len(each.chosen.split()) for each in pairs], [len(each.rejected.split()) for each in pairs])


def by_judge(pairs: Sequence[PreferencePair], attribute: str) -> float:
    """Share of pairs that ``persona-match`` ranks rightly; those of which either answer is unscored are left out."""
    items = [
        Item(f"{index}", text, **{attribute: said_of(each, attribute)})
        for index, each in enumerate(pairs)
        for text in (each.chosen, each.rejected)
    ]
    scores = [each.score for each in PersonaMatchJudge().judge(items, [attribute])[attribute]]
    both = [pair for pair in zip(scores[::2], scores[1::2], strict=True) if None not in pair]
    return ranked(*zip(*both, strict=True))


def line(attribute: str, data: Path) -> list[str]:
    """The table's line of an attribute."""
    pairs = pairs_of(attribute, data)[1][:MOST_MEASURED]
    adapter = SHIPPED_ADAPTERS / attribute
    own, others = (adapter_report(SMOLLM2, adapter, each, _MAX_TOKENS).accuracy for each in (pairs, of_another(pairs)))
    told = (by_judge(pairs, attribute), by_judge(against_another(pairs), attribute))
    shares = (by_length(pairs), told[0], own, others, told[1])
    return [attribute, str(len(pairs)), *(f"{share:.3f}" for share in shares)]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="tools.role_play_pairs", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the pairs")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    shares = ("longer", "persona-match", "adapter", "under another's persona", "against another's answer")
    print(aligned(["adapter", "held out", *shares], [line(name, options.data) for name in ROLE_PLAY]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
