"""Whether a job's chats are put to the template as the adapters' were: what their cards say of it (`mpg train`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mpg.models.template import reads_day
from mpg.settings import DEFAULT_DATE
from pipeline.plan.cards import card_of
from pipeline.plan.plan import Plan
from pipeline.plan.sources import chat_style

# What a card calls it -> the job's field, and what stands there by default.
_FIELDS: dict[str, tuple[str, Any]] = {
    "arguments": ("model.template_arguments", {}),
    "date": ("model.date", DEFAULT_DATE),
    "system_role": ("model.system_role", "template"),
}


def trained_otherwise(plan: Plan, *, told: bool) -> Iterator[str]:
    """A line for each attribute whose adapter read other chats in training than the job's models will read.

    Args:
        told: whether some of those have a system message.
    """
    here = chat_style(plan.job).described()
    adapters = dict(plan.sources.adapters)
    matters = {"arguments": True, "date": reads_day(plan.tokenizer), "system_role": told}
    for index, each in enumerate(plan.job.attributes):
        there = template_of_card(adapters[each.name])
        if there is None:
            continue
        trained, wanted = [], []
        for name, (field, default) in _FIELDS.items():
            was, now = there.get(name, default), here.get(name, default)
            if was != now and matters[name]:
                trained.append(f"{field} {_shown(was)}, here {_shown(now)}")
                wanted.append(f"{field}: {_shown(was)}")
        if trained:
            yield (
                f"attributes[{index}].adapter: {each.name} was trained with {'; '.join(trained)}: it reads other "
                f"prompts than in training; set {', '.join(wanted)}, or train it anew"
            )


def template_of_card(place: Any) -> Mapping[str, Any] | None:
    """What an adapter's card says of the template in its training; ``None``: nobody says how it was trained."""
    card = card_of(place)
    if card is None or "recipe" not in card:
        return None
    found = card.get("template", {})
    return found if isinstance(found, dict) else None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
