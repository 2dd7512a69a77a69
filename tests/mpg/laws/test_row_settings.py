"""Laws of rows that differ in their settings: bit for bit what each row's own numbers give."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mpg import DecoderSettings
from mpg.laws.drawing import truncate, truncate_log
from mpg.laws.layout import Layout, Part
from mpg.laws.logspace import log_policy
from mpg.laws.row_settings import RowSettings
from mpg.laws.target import TargetState, follow, log_q_of, log_token_law, token_law
from mpg.models.workspace import Workspace

VOCAB = 3000  # more than the nucleus candidates that are looked at first
LAYOUT = Layout(("a", "b"), (1, 2), (0, 3))  # b has a reference of its own
KINDS = {"reference": "reference", "sum": "scr-exact", "product": "mod", "pad": "pad", "routed": "routing"}
EACH = [
    DecoderSettings(temperature=t, strength=s, horizon=h, **cut)
    for (t, h), s, cut in zip(
        itertools.cycle([(1.0, 2), (0.3, None), (0, 3), (2.5, 1)]),
        itertools.cycle([1.0, {"a": 0.5, "b": 1.0}, 7.0]),
        [{}, {"top_k": 5}, {"top_p": 0.5}, {"top_k": 9, "top_p": 0.8}, {"top_k": VOCAB + 9}, {"top_p": 0.999}, {}] * 2,
        strict=False,
    )
]
N = len(EACH)


def numbers(dtype: torch.dtype, scale: float = 2.0) -> Tensor:
    """Logits ``[branches, rows, vocab]``; row 1 has ties, row 2 nearly all on one token."""
    drawn = torch.randn(4, N, VOCAB, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * scale
    drawn[:, 1] = drawn[:, 1].round()
    drawn[:, 2] *= 20
    return drawn.to(dtype)


def lines_of(rows: slice) -> list[Part]:
    """Parts of rows that all carry both attributes, lines branch by branch."""
    row = torch.arange(len(range(N)[rows]))
    n = len(row)
    models = zip(LAYOUT.policy, LAYOUT.reference, strict=True)
    return [Part(i, row, pi * n + row, rho * n + row, plain=rho == 0) for i, (pi, rho) in enumerate(models)]


def of_rows(kind: str, rows: slice, settings: RowSettings, dtype: torch.dtype) -> list[Tensor]:
    """Everything that the laws say of some rows: both laws, the components of a token, the weights after it."""
    logits = numbers(dtype)[:, rows].flatten(0, 1)
    n = len(logits) // 4
    lines, temperature = torch.arange(n).repeat(4), settings.temperature
    one_each = isinstance(temperature, Tensor) and temperature.dim()
    log_policies = log_policy(logits, temperature[lines] if one_each else temperature)  # type: ignore[index]
    assert torch.equal(Workspace().log_policy(logits, temperature[lines] if one_each else temperature), log_policies)  # type: ignore[index]
    alphas = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(n, 2)
    state, parts = TargetState(alphas, alphas.log()), lines_of(rows)
    law, log_q = token_law(kind, log_policies, parts, state, settings)
    token = law.argmax(-1)
    of_token = log_q_of(token, log_policies, parts, settings.strengths, log_q)
    again = log_q_of(token, log_policies, parts, settings.strengths)
    weights = follow(state, of_token, parts, torch.arange(N)[rows] % 4, settings.horizon)
    return [law, log_token_law(kind, log_policies, parts, state, settings), *log_q, *of_token, *again, weights]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rows_numbers_are_those_of_its_own_settings_to_the_last_bit(kind: str, dtype: torch.dtype) -> None:
    own = RowSettings.of(EACH, LAYOUT.attributes)
    together = of_rows(kind, slice(0, N), own, dtype)
    assert all(isinstance(each, Tensor) for each in (own.temperature, own.top_k, own.top_p, own.greedy, own.horizon))
    for row, settings in enumerate(EACH):
        alone = of_rows(kind, slice(row, row + 1), RowSettings.of([settings], LAYOUT.attributes), dtype)
        for one, all_ in zip(alone, together, strict=True):
            assert torch.equal(one[0], all_[row]), (row, settings)
    several = together[0].unique(dim=0)
    assert len(several) == N  # and they differ


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("ks", "ps"),
    [([0, 1, 7, VOCAB - 1, VOCAB, VOCAB + 1, 40] * 2, 1.0), (0, [1.0, 0.3, 0.999, 1e-9, 0.9, 1.0, 0.5] * 2)],
    ids=["top_k", "top_p"],
)
def test_one_truncation_a_row(dtype: torch.dtype, ks: int | list[int], ps: float | list[float]) -> None:
    laws = numbers(dtype)[0].log_softmax(-1)
    k = torch.tensor(ks) if isinstance(ks, list) else ks
    p = torch.tensor(ps, dtype=torch.float64) if isinstance(ps, list) else ps
    for cut, given in ((truncate, laws.exp()), (truncate_log, laws)):
        found = cut(given, top_k=k, top_p=p)
        assert torch.equal(found, cut(given, top_k=k, top_p=p, most_k=max(ks) if isinstance(ks, list) else ks))
        for row in range(N):
            own = {"top_k": ks[row] if isinstance(ks, list) else ks, "top_p": ps[row] if isinstance(ps, list) else ps}
            assert torch.equal(found[row], cut(given[row : row + 1], **own)[0]), own
        untouched = [
            row for row in range(N) if (ks[row] in (0, VOCAB, VOCAB + 1) if isinstance(ks, list) else ps[row] == 1.0)
        ]  # type: ignore[index]
        assert untouched and all(torch.equal(found[row], given[row]) for row in untouched)


def test_what_rows_agree_in_is_one_number() -> None:
    """So a batch of one setting costs no operator more than a single row's settings do."""
    one = RowSettings.of([EACH[1]] * 5, LAYOUT.attributes)
    assert (one.top_k, one.top_p, one.greedy, one.horizon, one.strengths) == (5, 1.0, False, None, (0.5, 1.0))
    assert one.at(torch.tensor([1, 2])) is one and one.temperature.dim() == 0  # type: ignore[union-attr]
    plain = RowSettings.of([DecoderSettings()] * 3, LAYOUT.attributes)
    assert plain.temperature == 1.0 and plain.at_strength_1 and not plain.truncates
    # Of what a row does not carry, the strength plays no part.
    mixed = [DecoderSettings(strength={"a": 2.0}), DecoderSettings(strength={"b": 3.0})]
    assert RowSettings.of(mixed, LAYOUT.attributes, carried=[{"a"}, {"b"}]).strengths == (2.0, 3.0)
    some = RowSettings.of(EACH, LAYOUT.attributes).at(torch.tensor([3, 0]))
    assert some.top_k.tolist() == [9, 0] and some.strengths[0].tolist() == [1.0, 1.0]  # type: ignore[union-attr]
