"""What an adapter's card says of its training, where that decides what the adapter may be used with (`mpg train`)."""

from __future__ import annotations

import json
from typing import Any

from mpg.models.chat import answer_start
from mpg.models.hub import Place, PlaceError
from mpg.models.template import ChatStyle
from pipeline.job.adapters import ADAPTER_CARD


def card_of(place: Place) -> dict[str, Any] | None:
    """An adapter's card; ``None``: it has none that can be read."""
    try:
        file = place.file(ADAPTER_CARD)
        card = {} if file is None else json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, PlaceError):
        return None
    return card if isinstance(card, dict) else None


def start_problem(place: Place, invocation: tuple[int, ...], tokenizer: Any, style: ChatStyle) -> str | None:
    """Why an adapter that is to be on from where an answer begins would not be, over a chat template; ``None``: it is.

    A template that begins answers otherwise than that of its training: the adapter would be on from an earlier turn of
    a chat, or from nowhere. A foreign aLoRA's tokens may stand wherever its author wants them.

    Args:
        invocation: the adapter's tokens (aLoRA); none: it is on everywhere.
    """
    recipe = (card_of(place) or {}).get("recipe")
    if not invocation or not isinstance(recipe, dict) or not recipe.get("from_answer"):
        return None
    here, there = answer_start(tokenizer, style), list(invocation)
    if any(here[i : i + len(there)] == there for i in range(len(here))):
        return None
    was, is_now = (repr(tokenizer.decode(tokens)) for tokens in (there, here))
    return (
        f"it is on from where an answer begins, in its training after {was}, and the chat template begins them after "
        f"{is_now}; give the model, and what is said to its template, that it was trained with"
    )
