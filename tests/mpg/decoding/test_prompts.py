"""Prompts run once: whatever row they belong to, also when it has ended, and once for branches that are still alike."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.decoding import prompts
from mpg.models.lanes import BankSession
from mpg.oracle.decoder import decode_slowly
from mpg.settings import DECODERS
from tests.fakes import tabular_bank, tiny_adapter, tiny_llama

CALL = [11, 12]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("prompts")
    base, top = tiny_llama(folder / "base", n_layers=3), {"layers_to_transform": [2], "targets": ["v_proj", "up_proj"]}
    called: dict[str, Any] = {"alora_invocation_tokens": CALL}
    return base, {
        "all": tiny_adapter(base, folder / "all", seed=1, scale=0.5),
        "top": tiny_adapter(base, folder / "top", seed=2, scale=0.5, **top),
        "called": tiny_adapter(base, folder / "called", seed=3, scale=0.5, **called),
        "top, called": tiny_adapter(base, folder / "both", seed=4, scale=0.5, **called, **top),
    }


BANKS = {
    "all layers": ("all", "top"),
    "a trunk": ("top", "top"),
    "from the answer": ("called", "called"),
    "from the answer, over a trunk": ("top, called", "top, called"),
    "mixed": ("top, called", "called"),
}


@pytest.fixture(scope="module", params=[*BANKS, "functions"])
def bank(request: pytest.FixtureRequest, folders: tuple[Path, dict[str, Path]]) -> ModelBank:
    if request.param == "functions":
        return tabular_bank("xy", vocab_size=40)
    base, made = folders
    found = ModelBank.load(str(base), {name: made[of] for name, of in zip("xy", BANKS[request.param], strict=True)})
    found.eos_ids = frozenset()  # all rows end together: none is left to copy from
    return found


def asked(n: int, texts: int) -> list[Request]:
    """``n`` rows over some prompts in turn, each under other weights."""
    heads = [[5, 6, 7 + i % texts, *CALL, 9, 4] for i in range(n)]
    return [Request(head, {"x": i / n, "y": 1 - i / n}, seed=i) for i, head in enumerate(heads)]


def fed_prompts(monkeypatch: pytest.MonkeyPatch, bank: ModelBank, work: list[Request], size: int) -> Counter[int]:
    """Decode; prompt tokens fed to each branch."""
    fed: Counter[int] = Counter()
    right = BankSession.append

    def counting(self: BankSession, entries: Any, tokens: torch.Tensor, starts: torch.Tensor) -> Any:
        for branch, start in zip(entries.branches.tolist(), starts.tolist(), strict=True):
            fed[branch] += max(0, min(start + tokens.shape[1], len(work[0].prompt_ids) - 1) - start)
        return right(self, entries, tokens, starts)

    settings = DecoderSettings(max_new_tokens=3)
    with monkeypatch.context() as patch:
        patch.setattr(BankSession, "append", counting)
        done = list(decode(bank, work, settings, batch_size=size))
    assert [each.token_ids for each in done] == [decode_slowly(bank, request, settings) for request in work]
    return fed


@pytest.mark.parametrize("texts", [1, 3])
def test_a_prompt_runs_once_a_branch_also_when_its_rows_have_ended(
    bank: ModelBank, texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "_KEPT_SHARE", 3.0)
    fed = fed_prompts(monkeypatch, bank, asked(8, texts), 2)
    n = 6 + (texts - 1) * 4  # the first two tokens begin all of them
    bare = 3 * texts if bank.branch_invocations[1] else 0  # before the call
    expected = {0: n, 1: 3 * texts if bare else n, 2: 3 * texts if bare else n}
    assert fed == expected


def test_where_room_is_short_texts_are_the_same(bank: ModelBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those go that are wanted last; nothing is kept beyond the room."""
    work = asked(12, 4)
    least = fed_prompts(monkeypatch, bank, work, 2)
    monkeypatch.setattr(prompts, "_KEPT_SHARE", 0.0)
    none = fed_prompts(monkeypatch, bank, work, 2)
    assert sum(least.values()) < sum(none.values())
    kept: list[int] = []
    keep = prompts.Prompts._keep

    def watching(self: prompts.Prompts, *more: Any) -> None:
        keep(self, *more)
        kept.append(self._taken())
        assert self._taken() <= self._room

    monkeypatch.setattr(prompts, "_KEPT_SHARE", 0.3)
    monkeypatch.setattr(prompts.Prompts, "_keep", watching)
    some = fed_prompts(monkeypatch, bank, work, 2)
    assert max(kept) > 0 and sum(some.values()) < sum(none.values())


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_finds_the_prompts_of_rows_that_ended(bank: ModelBank, name: str) -> None:
    """Rows of other attributes, too, whose references have read the prompt; books as of rows decoded alone."""
    if name == "soup" and not bank.can_mix:
        return
    weights = [{"x": 1.0}, {"y": 1.0}] if name == "single" else [{"x": 1.0}, {"y": 1.0}, {"x": 0.3, "y": 0.7}]
    work = [Request(each.prompt_ids, weights[i % len(weights)], i) for i, each in enumerate(asked(9, 2))]
    settings = DecoderSettings(name=name, max_new_tokens=4, max_tries=2, n_candidates=2)
    together = list(decode(bank, work, settings, batch_size=3))
    for request, done in zip(work, together, strict=True):
        (alone,) = decode(bank, [request], settings)
        assert done.token_ids == alone.token_ids
        assert done.log_ratios == pytest.approx(alone.log_ratios, abs=1e-4)


def test_prompts_of_their_own_are_kept_apart(bank: ModelBank) -> None:
    """What an attribute reads for itself is like the reference's up to where the two differ."""
    own = [{}, {"x": [5, 6, *CALL, 9]}, {"y": [*CALL, 8, 4]}, {"x": [5, 6, 7, *CALL, 9, 4], "y": [*CALL, 1]}]
    work = [Request(r.prompt_ids, r.weights, r.seed, own[i % 4]) for i, r in enumerate(asked(12, 2))]
    settings = DecoderSettings(max_new_tokens=3)
    done = decode(bank, work, settings, batch_size=2)
    assert [each.token_ids for each in done] == [decode_slowly(bank, request, settings) for request in work]


@pytest.mark.parametrize("max_new_tokens", [1, 3])
def test_calls_at_any_place_leave_room_for_the_widest_prompt(bank: ModelBank, max_new_tokens: int) -> None:
    """A lane that begins late is padded to the width of one that begins early: no further than its cache reaches."""
    heads = [[5] * 40 + [*CALL, 9], [5, *CALL, *[7] * 30], [*CALL, 4], [5] * 20 + [*CALL, *[8] * 20]]
    work = [Request(heads[i % 4], {"x": 0.5, "y": 0.5}, i) for i in range(8)]
    settings = DecoderSettings(name="mod", max_new_tokens=max_new_tokens)
    together = [each.token_ids for each in decode(bank, work, settings, batch_size=4)]
    assert together == [next(decode(bank, [request], settings)).token_ids for request in work]


def test_what_is_copied_of_the_reference_is_what_it_would_have_run(
    bank: ModelBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of their own that part from the reference's early and call late: books are those without a copy."""
    own = [{"x": [20, 21, 22, 23, 24, *CALL, 9, 4]}, {"y": [5, 30, 31, 32, *CALL, 4]}, {"x": [5, 6, 33, 34, *CALL, 9]}]
    work = [Request(r.prompt_ids, {"x": 0.5, "y": 0.5}, r.seed, own[i % 3]) for i, r in enumerate(asked(6, 2))]
    settings = DecoderSettings(max_new_tokens=4)
    got = list(decode(bank, work, settings, batch_size=3))
    monkeypatch.setattr(BankSession, "bare_until", lambda *_: 0)
    for done, wanted in zip(got, decode(bank, work, settings, batch_size=3), strict=True):
        assert done.token_ids == wanted.token_ids
        assert done.log_ratios == pytest.approx(wanted.log_ratios, abs=1e-4)
