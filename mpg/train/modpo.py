"""MODPO (Zhou et al., Findings of ACL 2024): weights in, one model out; the retraining baseline.

Its margin loss for attribute k under weights w, other attributes having rewards ``R_i``, is

``-log sigmoid(1/w_k [ beta (log r(y) - log r(y')) - sum_{i != k} w_i (R_i(y) - R_i(y')) ])``

with ``log r = log pi - log pi_0``. Here the rewards are the other attributes' own preference models, ``R_i =
beta log pi_i/pi_0`` up to a term of the prompt alone, which the difference loses (Rafailov et al. 2023). So

``1/w_k [...] = beta/w_k ([log pi(y) - log m(y)] - [log pi(y') - log m(y')])``,
``log m = log pi_0 + sum_{i != k} w_i (log pi_i - log pi_0)``:

DPO with ``beta/w_k`` against other reference log-probabilities. Nothing of the trainer's loss is written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mpg.models.bank import ModelBank
from mpg.models.hub import Place
from mpg.score.texts import component_log_probs


def with_margins(
    dataset: Any, model_id: str, adapters: Mapping[str, Place | str], weights: Mapping[str, float], dtype: torch.dtype
) -> Any:
    """A trainer's data set whose reference log-probabilities are ``log m``.

    Args:
        dataset: columns ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, ``ref_chosen_logps``, ``ref_rejected_logps``.
        adapters, weights: of the other attributes, by name.

    Raises:
        BankError: an adapter that does not fit the model.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bank = ModelBank.load(model_id, adapters, dtype=dtype, device=device)
    for side in ("chosen", "rejected"):
        texts = list(zip(dataset["prompt_ids"], dataset[f"{side}_ids"], strict=True))
        shifted = []
        for before, (_, log_probs) in zip(dataset[f"ref_{side}_logps"], component_log_probs(bank, texts), strict=True):
            ratios = bank.layout.log_ratios(log_probs.sum(0)).tolist()
            shifted.append(before + sum(weights[name] * r for name, r in zip(bank.attributes, ratios, strict=True)))
        dataset = dataset.remove_columns(f"ref_{side}_logps").add_column(f"ref_{side}_logps", shifted)
    return dataset
