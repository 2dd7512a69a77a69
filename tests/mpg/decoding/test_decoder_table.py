"""The one table of decoders, and that a row of it and a round are all that a new decoder takes."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from mpg import DecoderSettings, Request, decode, law
from mpg.decoding.engine import ROUNDS, added_decoder
from mpg.decoding.rounds.base import Round
from mpg.decoding.rows import DRAFT, REPLACEMENT, TEST
from mpg.laws.drawing import draw
from mpg.laws.verify import settle
from mpg.score.choices import choice_log_probs
from mpg.settings import AGGREGATES, DECODERS, EXACT_DECODERS, JOB_DECODERS, TABLE, DecoderFacts
from tests.fakes import tabular_bank
from tests.laws import chi_square_p_value

ALPHA = 1e-4
N_DRAWS = 4000
WEIGHTS = {"a": 0.3, "b": 0.7}
PROMPT = [1, 2]


def test_every_decoder_has_a_round_and_every_round_a_decoder() -> None:
    assert set(ROUNDS) == set(TABLE) == set(DECODERS)
    assert all(facts.name == name for name, facts in TABLE.items())


@pytest.mark.parametrize("name", DECODERS)
def test_facts_fit_one_another(name: str) -> None:
    facts, settings = TABLE[name], {field.name for field in fields(DecoderSettings)}
    assert {DecoderSettings(name=name, aggregate=each).target for each in AGGREGATES} == (
        {facts.target} if facts.target else set(AGGREGATES)
    )
    assert facts.exact or not facts.speculative
    assert (facts.tv_bound_ends is None) == facts.exact
    assert facts.weighted or not (facts.signed or facts.one_attribute or facts.soup)
    if facts.text_depends_on is not None:
        assert set(facts.text_depends_on) <= settings
        assert ("aggregate" in facts.text_depends_on) == (facts.target is None)
        assert ("strength" in facts.text_depends_on) == (name not in ("reference", "prompting"))


def test_single_is_the_one_decoder_without_rows() -> None:
    assert set(DECODERS) - set(JOB_DECODERS) == {"single"}


# ------------------------------------------------------------------ a new decoder: a row of the table, and a round

BLIND = DecoderFacts(name="blind", target="product", speculative=True, text_depends_on=None)


class BlindRound(Round):
    """Drafts a token without looking at any model; the verdict makes the product's law of it."""

    def propose(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens ``[rows]`` and the law they follow, ``[rows, vocab]``: the uniform one."""
        vocab = self.bank.vocab_size
        law = torch.full((len(uniforms), vocab), 1 / vocab, dtype=torch.float64)
        return draw(law, uniforms), law

    def step(self, session, rows) -> None:
        states = self.feed_last(session, rows, session.every_lane())
        uniforms = [rows.uniforms_at(0, column) for column in (DRAFT, TEST, REPLACEMENT)]
        for block in self.blocks(states, rows.every):
            log_policies = self.log_policies(states, block, 0)
            at, test, replacement = (u[block.rows] for u in uniforms)
            draft, drafted_from = self.propose(at)
            target, log_q = self.target(rows, block, log_policies)
            token, accepted = settle(target, drafted_from, draft, test, replacement)
            self.keep(rows, block, log_policies, token, log_q)
            rows.count_draft(block.rows, accepted)


class CarelessRound(BlindRound):
    """The same, with a law that its drafts do not follow."""

    def propose(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, law = super().propose(uniforms)
        return tokens, (law * torch.tensor([1.0, 2.0, 3.0])) / 2


def p_value(round_: type[Round]) -> float:
    """Of the new decoder's texts under its law, at a false-alarm probability of ALPHA; seeds are fixed."""
    bank = tabular_bank(scale=1.2)
    with added_decoder(BLIND, round_):
        settings = DecoderSettings(name="blind", strength=1.5, top_k=2, chunk_len=3, max_new_tokens=4)
        requests = [Request(PROMPT, WEIGHTS, seed=seed) for seed in range(N_DRAWS)]
        completions = list(decode(bank, requests, settings, batch_size=400))
        assert all(c.exact and c.tv_bound == 0.0 and 0 <= c.acceptance_rate <= 1 for c in completions)
        return chi_square_p_value((c.token_ids for c in completions), law(bank, PROMPT, WEIGHTS, settings))


def test_a_new_decoder_is_a_row_of_the_table_and_a_round() -> None:
    assert p_value(BlindRound) > ALPHA


def test_drafts_from_another_law_than_the_one_they_name_are_caught() -> None:
    assert p_value(CarelessRound) < ALPHA


def test_a_new_decoder_is_checked_and_scored_by_its_facts() -> None:
    bank = tabular_bank()
    signed = DecoderFacts(name="free", target="product", signed=True, text_depends_on=None)
    with added_decoder(signed, ROUNDS["mod"]):
        settings = DecoderSettings(name="free", max_new_tokens=3, chunk_len=2)
        request = Request(PROMPT, {"a": 1.4, "b": -0.6}, seed=0)
        same = DecoderSettings(name="drift", max_new_tokens=3, chunk_len=2)
        assert next(decode(bank, [request], settings)) == next(decode(bank, [request], same))
        assert choice_log_probs(bank, [(request, [(1,)])], settings) == choice_log_probs(
            bank, [(request, [(1,)])], same
        )


def test_an_added_decoder_goes_again_and_takes_no_other_ones_name() -> None:
    with pytest.raises(RuntimeError), added_decoder(BLIND, BlindRound):
        raise RuntimeError
    assert "blind" not in TABLE and "blind" not in ROUNDS
    with pytest.raises(ValueError, match="'blind' is not a decoder"):
        DecoderSettings(name="blind")
    taken = DecoderFacts(name="mod", target="pad", text_depends_on=None)
    with pytest.raises(ValueError, match="'mod' is there already"), added_decoder(taken, BlindRound):
        pass
    assert TABLE["mod"].target == "product"


def test_names_of_exact_decoders_are_the_exact_rows() -> None:
    assert set(EXACT_DECODERS) == set(DECODERS) - {"scr", "sequence-rejection", "best-of-n"}
