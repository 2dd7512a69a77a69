"""Whether a job's chats are put to the template as the adapters' were: what their cards say of it (`mpg train`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mpg.models.chat import answer_start
from mpg.models.hub import PlaceError
from mpg.models.template import reads_day
from mpg.settings import DEFAULT_DATE
from pipeline.job.adapters import ADAPTER_CARD
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


def begins_otherwise(plan: Plan) -> Iterator[str]:
    """A line for each adapter that is to be on from where an answer begins, over a template that begins one otherwise.

    There it would be on from an earlier turn, or from nowhere.
    """
    here = answer_start(plan.tokenizer, chat_style(plan.job))
    adapters = dict(plan.sources.adapters)
    for index, each in enumerate(plan.job.attributes):
        recipe, tokens = (_card(adapters[each.name]) or {}).get("recipe"), plan.invocations.get(each.name)
        if not isinstance(recipe, dict) or not recipe.get("from_answer") or not tokens:
            continue
        there = list(tokens[0])
        if not any(here[i : i + len(there)] == there for i in range(len(here))):
            yield (
                f"attributes[{index}].adapter: {each.name} is on from where an answer begins, in its training after "
                f"{plan.tokenizer.decode(there)!r}, and with this model's chat template and model.template_arguments "
                f"answers begin after {plan.tokenizer.decode(here)!r}; give those that it was trained with"
            )


def template_of_card(place: Any) -> Mapping[str, Any] | None:
    """What an adapter's card says of the template in its training; ``None``: nobody says how it was trained."""
    card = _card(place)
    if card is None or "recipe" not in card:
        return None
    found = card.get("template", {})
    return found if isinstance(found, dict) else None


def _card(place: Any) -> dict[str, Any] | None:
    try:
        file = place.file(ADAPTER_CARD)
        card = {} if file is None else json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, PlaceError):
        return None
    return card if isinstance(card, dict) else None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
