"""What all decoders' rounds share: which branches a row needs, the target's law, the books."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mpg.decoding.rows import ROUTE, Rows
from mpg.laws.bound import RatioAlarm
from mpg.laws.drawing import draw
from mpg.laws.logspace import NotNumbersError, broken_lines
from mpg.laws.row_settings import RowSettings
from mpg.laws.target import SUMS, follow, largest_or, log_q_of, token_law, truncated
from mpg.models.bank import ModelBank
from mpg.models.lanes import BankSession
from mpg.models.states import Block, Entries, States, block_of
from mpg.models.workspace import Workspace
from mpg.request import Request
from mpg.settings import UNTOLD, DecoderSettings

# Log-probabilities held at once: 64 lines of a vocabulary of 50,000 are 13 MB in float32, which stay in
# the cache of a CPU. A row's lines are never divided.
# A GPU has no such cache to stay in and is given its work kernel by kernel: 256 MiB in float32.
NUMBERS_AT_ONCE, NUMBERS_AT_ONCE_ON_GPU = 64 * 50_000, 64 * 2**20

# Tokens fed in one pass while catching up: bounds the memory of its activations.
_PASS_TOKENS, _PASS_TOKENS_ON_GPU = 1024, 16384


class Round:
    """A decoder's round over all running rows; subclasses say what is fed, drawn and kept.

    Attributes:
        settings: what all rows have in common is read from it; where they may differ, see
            :func:`mpg.settings.in_common`, ``row_settings`` says what each has.
        row_settings: of the rows that run; the engine renews them as rows come and go.
    """

    overhang = 1  # cache positions past a row's longest text that a round may write

    def __init__(self, bank: ModelBank, settings: DecoderSettings, alarm: RatioAlarm, *, draft_len: int | None) -> None:
        self.bank, self.settings, self.alarm, self.draft_len = bank, settings, alarm, draft_len
        self.kind = settings.target
        self.row_settings = RowSettings.of([settings], bank.attributes, device=bank.device)
        self._of_block: tuple[Block | None, RowSettings] = None, self.row_settings
        self.workspace = Workspace()
        self._unseen: list[tuple[Tensor, Callable[[int | slice], tuple[Tensor, Tensor]]]] = []
        at_once = NUMBERS_AT_ONCE if bank.device.type == "cpu" else NUMBERS_AT_ONCE_ON_GPU
        self.lines_at_once = max(1, at_once // bank.vocab_size)
        self.eos_ids = torch.tensor(sorted(bank.eos_ids), dtype=torch.long, device=bank.device)

    def branches(self, request: Request) -> list[int]:
        """Branches that a row needs: the reference and, per attribute of its request, ``pi_i`` and ``rho_i``."""
        attributes = request.weights if self.settings.facts.weighted else ()
        return self.bank.layout.branches_of(attributes, told=UNTOLD in request.prompts)

    def soup(self, request: Request, settings: DecoderSettings) -> Tensor | None:
        """Adapter coefficients of the soup of a row with these settings, if it has one."""
        return None

    @property
    def bare(self) -> bool:
        """Whether every component is its preference model itself: q_i = pi_i."""
        return self.row_settings.at_strength_1 and not any(self.bank.layout.reference)

    def step(self, session: BankSession, rows: Rows) -> None:
        """One round."""
        raise NotImplementedError

    def finish(self, session: BankSession, rows: Rows, slots: list[int]) -> None:
        """What is left to do for rows that have ended, before their completions are made: books that no law needed."""
        late = self.bank.layout.booked_late
        pairs = [(slot, late) for slot in slots if late is not None and late in session.branches_of(slot)]
        if pairs:
            self.catch_up(session, rows, pairs, self.lag(rows).tolist())

    # ------------------------------------------------------------------ for subclasses

    def lag(self, rows: Rows) -> Tensor:
        """Tokens that each lane has missed, ``[rows, branches]``."""
        return rows.n_cached()[:, None] - rows.fed[: len(rows)]

    def catch_up(
        self, session: BankSession, rows: Rows, pairs: Sequence[tuple[int, int]], lag: Sequence[Sequence[int]]
    ) -> None:
        """Feed (row, branch) lanes all they have missed but the row's last token, and book it.

        Args:
            lag: see :meth:`lag`.
        """
        behind = sorted((pair for pair in pairs if lag[pair[0]][pair[1]] > 0), key=lambda p: lag[p[0]][p[1]])
        at_once = _PASS_TOKENS if self.bank.device.type == "cpu" else _PASS_TOKENS_ON_GPU
        while behind:
            width = lag[behind[-1][0]][behind[-1][1]]
            size = max(1, at_once // width)
            self._feed_missed(session, rows, session.pick(behind[-size:]), width)
            del behind[-size:]

    def _feed_missed(self, session: BankSession, rows: Rows, entries: Entries, width: int) -> None:
        shift = rows.shift[entries.rows, entries.branches]
        upto, fed = rows.starts(entries), rows.fed[entries.rows, entries.branches] + shift  # positions of the lanes
        # Aligned at the end: a lane that lags less is fed some tokens again, to the same effect.
        starts = (upto - width).clamp_min(0)
        positions = starts[:, None] + torch.arange(width, device=starts.device)  # [lanes, width]
        session.foresee(rows.reach(1))
        states = session.append(entries, rows.tokens_at(entries, positions), starts)
        missed = (positions >= fed[:, None]) & (positions < upto[:, None])
        missed &= positions >= (rows.n_prompt[entries.rows] + shift)[:, None] - 1  # what they say of the response
        following = rows.tokens_at(entries, positions + 1)
        if starts.device.type == "cpu":
            log_probs = torch.zeros(positions.shape, dtype=torch.float64)
            log_probs[missed] = self.log_probs_at(states, missed.nonzero(), following[missed])
        else:  # which is not asked where: most are
            place = torch.arange(missed.numel(), device=starts.device)
            places = torch.stack([place // width, place % width], dim=1)
            found = self.log_probs_at(states, places, following.flatten()).view(positions.shape)
            log_probs = torch.where(missed, found, 0.0)
        rows.log_probs[entries.rows, entries.branches] += log_probs.sum(1)
        if rows.token_log_probs is not None:
            in_response = positions + 1 - (rows.n_prompt[entries.rows] + shift)[:, None]
            past_end = torch.full_like(in_response, rows.longest_response)
            place = torch.where(missed, in_response, past_end)
            rows.book_tokens(entries.rows[:, None], place, entries.branches[:, None], log_probs)
        rows.fed[entries.rows, entries.branches] = upto - shift

    def feed_last(self, session: BankSession, rows: Rows, entries: Entries) -> States:
        """Feed each row's last token to some of its lanes."""
        starts = rows.starts(entries)
        session.foresee(rows.reach(1), fresh=True)
        return session.append(entries, rows.last_tokens(entries, starts)[:, None], starts)

    def blocks(self, states: States, rows: Tensor | None = None) -> Iterator[Block]:
        """Rows with their lanes, a few at a time; ``None``: all, which the host knows by itself."""
        n_branches = self.bank.layout.n_branches + 1
        n = states.places.n_rows if rows is None else len(rows)
        size = max(1, self.lines_at_once * n // max(1, len(states)))
        if rows is None:
            yield from states.places.blocks(size, self.bank.layout)
            return
        for first in range(0, len(rows), size):
            yield block_of(states.rows, states.branches, rows[first : first + size], self.bank.layout, n_branches)

    def log_policies(self, states: States, block: Block, position: int) -> Tensor:
        """``[lines, vocab]``, until the next call."""
        logits = states.logits(block.entries, position, block.by_part)
        return self.normalised(logits, states.lane_among(block.entries))

    def normalised(self, logits: Tensor, lane_of: Callable[[int | slice], tuple[Tensor, Tensor]]) -> Tensor:
        """Log-policies ``[lines, vocab]`` at the rows' temperatures, until the next call.

        Args:
            lane_of: the row and the branch of a line, asked where it is broken; of all, where temperatures differ.

        Raises:
            NotNumbersError: logits that are not numbers, with the row and the model that they are of; a device is not
                asked before the round is over (:meth:`broken`).
        """
        temperature = self.row_settings.temperature
        if isinstance(temperature, Tensor) and temperature.dim():
            temperature = temperature[lane_of(slice(None))[0]]
        log_policies = self.workspace.log_policy(logits, temperature, check=False)
        self._unseen.append((broken_lines(log_policies), lane_of))
        if logits.device.type == "cpu":
            self.look()
        return log_policies

    def broken(self) -> Tensor | None:
        """Whether any logits since the last look were not numbers, ``[1]`` bool; ``None``: there were none."""
        if not self._unseen:
            return None
        lines = [broken for broken, _ in self._unseen]
        return (torch.cat(lines) if len(lines) > 1 else lines[0]).any(0, keepdim=True)

    def look(self) -> None:
        """Look at them.

        Raises:
            NotNumbersError: see :meth:`normalised`.
        """
        unseen, self._unseen = self._unseen, []
        for broken, lane_of in unseen:
            if bool(broken.any()):
                error = NotNumbersError(int(broken.nonzero()[0]))
                error.slot, branch = map(int, lane_of(error.line))
                error.whose = self.bank.layout.in_words(branch)
                raise error

    def seen(self) -> None:
        """Nothing since the last look was broken, as somebody else has seen."""
        self._unseen = []

    def settings_of(self, block: Block) -> RowSettings:
        """Of a block's rows."""
        if self._of_block[0] is not block:
            self._of_block = block, self.row_settings.at(block.rows)
        return self._of_block[1]

    def target(self, rows: Rows, block: Block, log_policies: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See :func:`mpg.laws.target.token_law`."""
        state = rows.target_state(block.at)
        return token_law(self.kind, log_policies, block.parts, state, self.settings_of(block))

    def target_and_proposal(
        self, rows: Rows, block: Block, log_policies: Tensor
    ) -> tuple[tuple[Tensor, list[Tensor]], Tensor]:
        """:meth:`target`, and :meth:`proposal` of the block's references; a device cuts both at once."""
        own, log_pi0 = self.settings_of(block), log_policies[: len(block.rows)]
        if log_pi0.device.type == "cpu" or own.greedy is True or not own.truncates:
            return self.target(rows, block, log_policies), self.proposal(log_pi0, own)
        state = rows.target_state(block.at)
        target, log_q = token_law(self.kind, log_policies, block.parts, state, own, cut=False)
        both = torch.cat([target, largest_or(own.greedy, log_pi0, log_pi0.exp)])
        twice = own if own.alike else own.at(torch.arange(len(log_pi0), device=both.device).repeat(2))
        target, law = truncated(both, twice).chunk(2)
        return (target, log_q), law

    def proposal(self, log_policies: Tensor, settings: RowSettings) -> Tensor:
        """The law that drafts of a model follow, as the target is cut: lossless, and accepted more often.

        Args:
            settings: of the rows that ``log_policies [rows, vocab]`` are of.
        """
        return largest_or(settings.greedy, log_policies, lambda: truncated(log_policies.exp(), settings))

    def keep(self, rows: Rows, block: Block, log_policies: Tensor, token: Tensor, log_q: Sequence[Tensor] = ()) -> None:
        """Write one token for each of the block's rows, with its books and the weights after it."""
        self.book(rows, block, log_policies, token)
        if self.kind in SUMS:
            position = rows.n_new[block.at]
            rows.log_weights[block.at] = self.weights_after(rows, block, log_policies, token, position, log_q)
        rows.write(block.at, token, self.eos_ids)

    def weights_after(
        self, rows: Rows, block: Block, log_policies: Tensor, token: Tensor, position: Tensor, log_q: Sequence[Tensor]
    ) -> Tensor:
        """See :func:`mpg.laws.target.follow`."""
        state = rows.target_state(block.at)
        if self.kind not in SUMS:
            return state.log_weights
        own = self.settings_of(block)
        log_q_token = log_q_of(token, log_policies, block.parts, own.strengths, log_q)
        return follow(state, log_q_token, block.parts, position, own.horizon)

    def log_probs_at(self, states: States, places: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability of ``tokens [n]`` at (entry, position) ``places [n, 2]``, a few lines at a time."""
        out = [torch.empty(0, dtype=torch.float64, device=tokens.device)]
        for entry, token in zip(places.split(self.lines_at_once), tokens.split(self.lines_at_once), strict=True):
            logits = states.logits(entry[:, 0], entry[:, 1])
            log_policies = self.normalised(logits, states.lane_among(entry[:, 0]))
            out.append(log_policies.gather(1, token[:, None])[:, 0].double())
        return torch.cat(out)

    def draw_components(self, rows: Rows) -> Tensor:
        """Draw an attribute from the mixture's weights where a horizon begins or none is drawn.

        Returns:
            where, ``[rows]`` bool.
        """
        position, component = rows.n_new[: len(rows)], rows.component[: len(rows)]
        horizon, greedy = self.row_settings.horizon, self.row_settings.greedy
        begins = position == 0 if horizon is None else position % horizon == 0
        drawn = begins | (component < 0)
        weights = rows.log_weights[: len(rows)].softmax(-1)
        weights = largest_or(greedy, weights, lambda: weights)
        rows.component[: len(rows)] = torch.where(drawn, draw(weights, rows.uniforms_at(0, ROUTE)), component)
        return drawn

    def component_lanes(self, components: Sequence[int]) -> list[tuple[int, int]]:
        """The (row, branch) lanes that ``q_i`` of each row's drawn attribute needs.

        ``q_i = pi_i`` needs one; a strength or an own reference takes three to normalise.

        Args:
            components: of each row.
        """
        layout = self.bank.layout
        pairs: set[tuple[int, int]] = set()
        for row, i in enumerate(components):
            pairs |= (
                {(row, layout.policy[i])}
                if self.bare
                else {(row, b) for b in (0, layout.policy[i], layout.reference[i])}
            )
        return sorted(pairs)

    def book(self, rows: Rows, block: Block, log_policies: Tensor, token: Tensor) -> None:
        """Add the next token's log-probability under every lane of the block to the row's sums."""
        picked, mine = log_policies.gather(1, token[block.entry_rows, None])[:, 0], block.entry_slots
        rows.log_probs[mine, block.branches] += picked  # in float64
        if rows.token_log_probs is not None:
            rows.book_tokens(mine, rows.n_new[mine], block.branches, picked)
