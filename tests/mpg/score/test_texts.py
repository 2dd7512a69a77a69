"""The reference alone says of a text what it says beside the others."""

from __future__ import annotations

import pytest
import torch

from mpg.score.texts import component_log_probs, reference_log_probs
from tests.fakes import tabular_bank

TEXTS = [([1, 2], [1, 0, 2, 2, 1, 1, 0, 2, 1, 2]), ([2], [1]), ([1, 1, 1], [2, 2])]  # longer than a piece, too


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_reference_alone_is_branch_0(batch_size: int) -> None:
    bank = tabular_bank(["a", "b"], own_reference=True)
    found = reference_log_probs(bank, TEXTS, temperature=0.7, batch_size=batch_size)
    beside = component_log_probs(bank, TEXTS, temperature=0.7, batch_size=batch_size)
    for alone, (_, branches) in zip(found, beside, strict=True):
        assert torch.equal(alone, branches[:, 0])


def test_texts_without_tokens_are_named() -> None:
    bank = tabular_bank(["a", "b"])
    with pytest.raises(ValueError, match="text 1: response has no tokens"):
        reference_log_probs(bank, [([1], [1]), ([1], [])])
    with pytest.raises(ValueError, match="text 0: prompt has no tokens"):
        component_log_probs(bank, [([], [1])])
