"""Every exact decoder's decision tree, enumerated through the engine, is `law` to 1e-9."""

from __future__ import annotations

import itertools

import pytest
import torch

import mpg.decoding.rounds.block
import mpg.decoding.rounds.draft
import mpg.decoding.rounds.lossless
import mpg.decoding.rounds.mixture
import mpg.laws.verify
from mpg import DecoderSettings, law
from mpg.decoding.rows import Rows
from mpg.laws.verify import block_scales, block_thresholds, residual
from tests.decision_trees import tree_law
from tests.fakes import tabular_bank
from tests.laws import total_variation

WEIGHTS = {"a": 0.3, "b": 0.7}
PROMPT = [1, 2]

SCR = [
    {"horizon": 2, "draft_len": 3},
    {"horizon": 1, "draft_len": 1},
    {"horizon": 3, "draft_len": 2, "temperature": 0.5},
    {"horizon": None, "draft_len": 4, "strength": 2.0},
    {"horizon": 2, "draft_len": 2, "top_k": 2},
    {"horizon": 2, "draft_len": 1, "top_p": 0.7, "temperature": 2.0},
    {"horizon": 2, "draft_len": 3, "strength": {"a": 0.5, "b": 3.0}},
    {"horizon": 2, "draft_len": 3, "weights": {"a": 0.0, "b": 1.0}},
    {"aggregate": "product", "draft_len": 2, "strength": 2.0, "top_p": 0.8},
    {"aggregate": "product", "draft_len": 4},
    {"horizon": 2, "draft_len": 3, "temperature": 0},
    {"aggregate": "product", "draft_len": 2, "strength": 2.0, "temperature": 0},
]
MIXED = [
    {"horizon": 2, "draft_len": 3},
    {"horizon": None, "draft_len": 1},
    {"horizon": 3, "draft_len": 2, "top_k": 2, "vocab": 2, "strength": {"a": 0.5, "b": 3.0}},
    {"horizon": 1, "draft_len": 2, "top_k": 2, "max_new_tokens": 2},
    {"horizon": 2, "draft_len": 4, "top_p": 0.7, "max_new_tokens": 2, "temperature": 0.5},
    {"horizon": None, "draft_len": 3, "top_k": 2, "max_new_tokens": 2, "weights": {"a": 1.0, "b": 0.0}},
    {"horizon": None, "draft_len": 2, "top_p": 0.6, "vocab": 2, "temperature": 2.0},
    {"horizon": 2, "draft_len": 3, "temperature": 0},
    {"horizon": None, "draft_len": 2, "temperature": 0, "top_k": 2, "strength": {"a": 0.5, "b": 3.0}},
]
OTHERS = [
    {"name": "reference", "top_k": 2, "temperature": 0.7, "weights": {}},
    {"name": "prompting", "top_p": 0.8},
    {"name": "single", "strength": 3.0, "weights": {"b": 1.0}},
    {"name": "routing", "horizon": 1},
    {"name": "routing", "horizon": 2, "top_k": 2, "strength": 0.5},
    {"name": "routing", "horizon": None, "temperature": 0.5},
    {"name": "mod", "strength": {"a": 0.5, "b": 3.0}, "top_p": 0.7},
    {"name": "drift", "weights": {"a": 1.4, "b": -0.6}, "top_k": 2},
    {"name": "pad", "top_k": 2, "strength": 2.0},
    {"name": "soup", "strength": 1.5, "top_p": 0.9},
    *({"name": name, "temperature": 0, "top_p": 0.8} for name in ("prompting", "routing", "mod", "pad", "soup")),
]


def difference(bank, case: dict, monkeypatch: pytest.MonkeyPatch) -> float:
    """Total variation between the tree of a case and its law."""
    changes = {"name": "scr-exact", "drafter": "reference", "chunk_len": 4, "max_new_tokens": 3} | case
    weights, draft_len = changes.pop("weights", WEIGHTS), changes.pop("draft_len", None)
    prompts = changes.pop("prompts", None)
    wanted = DecoderSettings(**changes)
    tree = tree_law(bank, PROMPT, weights, wanted, monkeypatch, draft_len=draft_len, prompts=prompts)
    return total_variation(tree, law(bank, PROMPT, weights, wanted, prompts))


WITH_AND_WITHOUT = [
    (case, own) for case in SCR + OTHERS for own in (False, True) if case.get("name") != "soup" or not own
]


@pytest.mark.parametrize(("case", "own_reference"), WITH_AND_WITHOUT, ids=str)
def test_the_tree_is_the_law(case: dict, own_reference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert difference(tabular_bank(own_reference=own_reference), case, monkeypatch) < 1e-9


OWN_PROMPTS = {"prompts": {"a": [2, 1, 0, 2], "b": [1]}}


@pytest.mark.parametrize("own_reference", [False, True])
@pytest.mark.parametrize(
    "case",
    [SCR[0], SCR[6], SCR[8], OTHERS[2], OTHERS[4], OTHERS[5], OTHERS[6], OTHERS[7]],
    ids=str,
)
def test_the_tree_under_prompts_of_the_attributes_own_is_the_law(
    case: dict, own_reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert difference(tabular_bank(own_reference=own_reference), case | OWN_PROMPTS, monkeypatch) < 1e-9


@pytest.mark.parametrize("case", [MIXED[0], MIXED[2], MIXED[4]], ids=str)
def test_the_tree_from_the_mixture_under_own_prompts_is_the_law(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    case = dict(case)
    bank = tabular_bank(vocab_size=case.pop("vocab", 3))
    assert difference(bank, case | OWN_PROMPTS | {"drafter": "mixture"}, monkeypatch) < 1e-9


@pytest.mark.parametrize("own_reference", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("case", MIXED, ids=str)
def test_the_tree_with_drafts_from_the_mixture_is_the_law(
    case: dict, own_reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = dict(case)
    bank = tabular_bank(vocab_size=case.pop("vocab", 3), own_reference=own_reference)
    assert difference(bank, case | {"drafter": "mixture"}, monkeypatch) < 1e-9


def test_a_component_kept_after_a_rejection_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rejection the text no longer follows from the component that drafted: it must be drawn anew."""
    right = mpg.decoding.rounds.mixture.MixtureRound._settle

    def clinging(self, rows, *args):
        before = rows.component.clone()
        accepted = right(self, rows, *args)
        rows.component = before
        return accepted

    monkeypatch.setattr(mpg.decoding.rounds.mixture.MixtureRound, "_settle", clinging)
    case = {"horizon": None, "draft_len": 2, "top_k": 2, "drafter": "mixture"}
    with pytest.raises(AssertionError):
        assert difference(tabular_bank(), case | {"max_new_tokens": 3}, monkeypatch) < 1e-3


@pytest.mark.parametrize("case", [{"max_new_tokens": 4, "vocab": 2, "draft_len": 3}, {"vocab": 4, "max_new_tokens": 2}])
def test_other_vocabularies_and_lengths(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = tabular_bank(vocab_size=case.pop("vocab"))
    assert difference(bank, case | {"horizon": 3}, monkeypatch) < 1e-9


# ------------------------------------------------------------------ mutants that must be caught


def test_a_missing_residual_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpg.laws.verify.residual", lambda target, draft: target)
    assert difference(tabular_bank(), SCR[0], monkeypatch) > 1e-3


def test_a_residual_the_wrong_way_round_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpg.laws.verify.residual", lambda target, draft: residual(draft, target))
    assert difference(tabular_bank(), SCR[0], monkeypatch) > 1e-3


def test_weights_that_never_follow_the_tokens_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpg.decoding.rounds.base.follow", lambda state, *rest: state.alphas.log())
    assert difference(tabular_bank(), SCR[3], monkeypatch) > 1e-3
    block = DecoderSettings(verification="block", chunk_len=3, horizon=None, max_new_tokens=4)
    assert block_difference(block, monkeypatch) > 1e-3


def test_weights_reset_at_every_rejection_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mpg.decoding.rounds.lossless.LosslessRound._settle

    def forgetful(self, rows, states, alive, j, chunk):
        if j == 0:
            rows.log_weights = rows.alphas.log()
        return right(self, rows, states, alive, j, chunk)

    monkeypatch.setattr(mpg.decoding.rounds.lossless.LosslessRound, "_settle", forgetful)
    assert difference(tabular_bank(), SCR[3], monkeypatch) > 1e-3


def test_boundaries_counted_from_the_round_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Horizon boundaries fixed by the rounds of drafting instead of by position."""
    right = mpg.decoding.rounds.lossless.LosslessRound._settle

    def by_round(self, rows, states, alive, j, chunk):
        kept = right(self, rows, states, alive, j, chunk)
        weights = rows.alphas.log() if (j + 1) % 2 == 0 else rows.log_weights
        rows.log_weights[alive] = weights[alive]
        return kept

    monkeypatch.setattr(mpg.decoding.rounds.lossless.LosslessRound, "_settle", by_round)
    assert difference(tabular_bank(), SCR[0] | {"horizon": None, "draft_len": 2}, monkeypatch) > 1e-3


def test_a_draft_law_that_is_not_the_warped_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts from the truncated law, tested as if they came from the law before truncation."""
    right = mpg.decoding.rounds.lossless.settle

    def unwarped(target, law, draft, test, replacement):
        return right(target, (law + 0.2) / (law + 0.2).sum(-1, keepdim=True), draft, test, replacement)

    monkeypatch.setattr(mpg.decoding.rounds.lossless, "settle", unwarped)
    assert difference(tabular_bank(), SCR[4], monkeypatch) > 1e-3


@pytest.mark.parametrize("draft_len", [1, 2])
def test_a_cache_rolled_back_one_token_short_is_caught(draft_len: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Rows.n_cached
    monkeypatch.setattr(Rows, "n_cached", lambda self: right(self) + (self.n_new[: len(self)] > 1).long())
    assert difference(tabular_bank(), SCR[0] | {"draft_len": draft_len}, monkeypatch) > 1e-3


# ------------------------------------------------------------------ block verification


def block_tree(wanted: DecoderSettings, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], float]:
    """The engine's block rounds: laws and scores its own, its chunk's choices enumerated by hand.

    The engine is run on scripted drafts, one row for each; what it would keep with which probability is
    read from its own thresholds, and the text after the round follows the target (that it does is what
    makes a round lossless: by induction the rounds before it change nothing).
    """
    bank, chunk = tabular_bank(), wanted.chunk_len
    drafts = list(itertools.product(range(bank.vocab_size), repeat=chunk))
    seen: dict[str, torch.Tensor] = {}

    def spy(scales, rest, lengths):
        seen.update(thresholds=block_thresholds(scales, rest, lengths), lengths=lengths)
        return seen["thresholds"]

    rounds = mpg.decoding.rounds.block.BlockRound
    right_draft, right_walk = rounds.draft, rounds.walk

    def scripted(self, session, rows, uniforms):
        seen["tokens"] = torch.tensor(drafts)[[rows.requests[i].seed for i in range(len(rows))]]
        made = right_draft(self, session, rows, (seen["tokens"] + 0.5) / 8)
        seen["laws"] = torch.stack(made.laws, dim=1)
        return made

    def noting(self, *args, **kwargs):
        walk = right_walk(self, *args, **kwargs)
        seen.update(targets=torch.stack(walk.laws, dim=1))
        return walk

    class Stop(Exception):
        pass

    def stop(self, *args):
        raise Stop

    from mpg import Request, decode

    with monkeypatch.context() as patch:
        patch.setattr(mpg.laws.verify, "block_thresholds", spy)
        patch.setattr(mpg.decoding.rounds.draft, "draw", lambda probs, u: (u * 8).long())
        patch.setattr(rounds, "draft", scripted)
        patch.setattr(rounds, "walk", noting)
        patch.setattr(rounds, "keep_prefix", stop)
        requests = [Request(PROMPT, WEIGHTS, seed=i) for i in range(len(drafts))]
        with pytest.raises(Stop):
            list(decode(bank, requests, wanted, batch_size=len(requests)))
    out: dict[tuple[int, ...], float] = {}
    for row in range(len(drafts)):
        x, length = seen["tokens"][row].tolist(), int(seen["lengths"][row])
        if any(x[length:]):
            continue  # what is drafted behind the end is no part of the chunk
        q, target, h = (seen[key][row] for key in ("laws", "targets", "thresholds"))
        drafted = float(torch.stack([q[j, x[j]] for j in range(length)]).prod())
        log_steps = [(target[j, x[j]] / q[j, x[j]]).log() for j in range(length)]
        scale = block_scales(torch.stack(log_steps)[None], torch.zeros(1, length).double())[0]
        behind = 1.0  # probability that no longer prefix passes
        for kept in range(length, -1, -1):
            passing = float(h[kept - 1]) if kept else 1.0
            p = drafted * behind * passing
            behind *= 1 - passing
            if kept == length:
                out[tuple(x[:length])] = out.get(tuple(x[:length]), 0.0) + p
                continue
            rest = residual(scale[kept] * target[kept : kept + 1], q[kept : kept + 1])[0]
            for token, share in enumerate((rest / rest.sum()).tolist()):
                key = (*x[:kept], token)
                out[key] = out.get(key, 0.0) + p * share
    return out


def block_difference(wanted: DecoderSettings, monkeypatch: pytest.MonkeyPatch) -> float:
    """Total variation of responses: a round's prefix, then the target, against the target alone."""
    bank = tabular_bank()
    target = law(bank, PROMPT, WEIGHTS, wanted)
    prefixes = block_tree(wanted, monkeypatch)
    completed: dict[tuple[int, ...], float] = {}
    mass = {prefix: sum(p for r, p in target.items() if r[: len(prefix)] == prefix) for prefix in prefixes}
    for prefix, p in prefixes.items():
        for response, q in target.items():
            if p > 0 and response[: len(prefix)] == prefix:
                completed[response] = completed.get(response, 0.0) + p * q / mass[prefix]
    return total_variation(completed, target)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_len": 1},
        {"chunk_len": 2, "horizon": 1},
        {"chunk_len": 3, "horizon": 2},
        {"chunk_len": 4, "horizon": None},
        {"chunk_len": 3, "horizon": 3, "strength": 2.0, "temperature": 0.7},
        {"chunk_len": 3, "aggregate": "product", "top_p": 0.9},
    ],
    ids=str,
)
def test_a_block_round_is_lossless(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = DecoderSettings(verification="block", max_new_tokens=4, **changes)
    assert block_difference(wanted, monkeypatch) < 1e-9
