"""Verdicts as probabilities: how many of evenly spread uniforms pass, without anything put in the place of a function.

The decision trees (tests/decision_trees.py) replace ``passes`` by a branch: what it does with a uniform is looked at
here (``draw``, which they replace as well, in tests/mpg/decoding/test_engine.py).
"""

from __future__ import annotations

import pytest
import torch

from mpg.laws.verify import accepted_prefix, passes, settle, whole_accepted

N = 1000
EVEN = (torch.arange(N, dtype=torch.float64) + 0.5) / N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.0, 0.001, 0.1, 0.5, 0.9, 0.98, 0.999, 1.0, 1.7])
def test_as_many_uniforms_pass_as_is_probable(probability: float, dtype: torch.dtype) -> None:
    passed = passes(torch.full((N,), probability, dtype=dtype), EVEN)
    assert abs(float(passed.double().mean()) - min(1.0, probability)) <= 1 / N
    assert passed[: int(passed.sum())].all()  # the smallest of them


def test_what_is_impossible_never_passes_and_what_is_certain_always_does() -> None:
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert not passes(torch.zeros(2, dtype=torch.float64), ends).any()
    assert passes(torch.ones(2, dtype=torch.float64), ends).all()


def test_a_settled_token_follows_the_target() -> None:
    """Drafts by the draft's law, tests and replacements spread evenly: what comes out is the target."""
    target, draft_law = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.1, 0.6, 0.05, 0.25])
    n = 200
    even = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    test, replacement = even.repeat_interleave(n), even.repeat(n)
    law = torch.zeros(4, dtype=torch.float64)
    for draft, share in enumerate(draft_law.tolist()):
        rows = torch.full((n * n,), draft)
        token, accepted = settle(target.expand(n * n, -1), draft_law.expand(n * n, -1), rows, test, replacement)
        assert (token[accepted] == draft).all()
        law += share * torch.bincount(token, minlength=4) / (n * n)
    assert torch.allclose(law, target.double(), atol=1 / n)


@pytest.mark.parametrize("salvage", [True, False])
def test_chunks_are_kept_with_the_probability_of_their_ratio(salvage: bool) -> None:
    """``min(1, R / M)``; with salvage each prefix by its own ratio, the longest that passes."""
    ratios, bound = [0.4, 1.6, 0.8], 2.0
    counts = accepted_prefix(
        torch.tensor(ratios, dtype=torch.float64).log().expand(N, -1),
        torch.full((N,), bound, dtype=torch.float64).log(),
        EVEN.log(),
        salvage=salvage,
    )
    whole = ratios[2] / bound
    expected = {3: whole, 2: ratios[1] / bound - whole, 1: 0.0} if salvage else {3: whole, 2: 0.0, 1: 0.0}
    for count, probability in expected.items():
        assert abs(float((counts == count).double().mean()) - probability) <= 1 / N


@pytest.mark.parametrize(("ratio", "bound"), [(0.7, 2.0), (1.9, 2.0), (3.0, 2.0), (1e-9, 1.0)])
def test_whole_responses_are_accepted_with_the_probability_of_their_ratio(ratio: float, bound: float) -> None:
    log_r = float(torch.tensor(ratio, dtype=torch.float64).log())
    accepted = sum(whole_accepted(log_r, bound, uniform) for uniform in EVEN.tolist())
    assert abs(accepted / N - min(1.0, ratio / bound)) <= 1 / N
