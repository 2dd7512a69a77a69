"""The data set's card: README.md with explicit configs, so that `datasets` opens the folder as it is."""

from __future__ import annotations

from pipeline.publish.card.template import TEMPLATE, template_problem, template_text
from pipeline.publish.card.write import write_card
from pipeline.store.dataset import CARD_FILE

__all__ = ["CARD_FILE", "TEMPLATE", "template_problem", "template_text", "write_card"]
