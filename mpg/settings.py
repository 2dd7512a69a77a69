"""What a decoder is told, and the one table of what each decoder is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

# The day that chat templates read where nobody names one: the day to which Llama 3's own fall back without a clock.
DEFAULT_DATE = "2024-07-26"

# Raised when the same settings and seed come to draw another text: part of a row's identity.
SAMPLER_VERSION = 2
# In 16 bits: since logits are kept in float32, see mpg.models.head.
SAMPLER_VERSION_IN_16_BITS = 3
VERIFICATIONS: tuple[str, ...] = ("token", "block")
DRAFTERS: tuple[str, ...] = ("mixture", "reference")
AGGREGATES: tuple[str, ...] = ("sum", "product")
# Who is told in a system message what the attributes are like, see :class:`DecoderSettings`.
TELLS: tuple[str, ...] = ("none", "reference", "all")
# Whose prompt it is that names nobody: the reference's where it is told nothing, see :class:`mpg.request.Request`.
UNTOLD = ""

# Logits up to 1e31 divided by it are numbers in float32.
LEAST_TEMPERATURE = 1e-6
# Log-ratios of up to 1e31 times it are numbers in float32; no text needs more than a few.
MOST_STRENGTH = 1e6

# What the law of every text depends on, and what an aggregate of components depends on besides.
_COMMON = ("name", "chunk_len", "max_new_tokens", "temperature", "top_k", "top_p")
_COMPOSED = ("strength", "tell")
_TARGET = ("aggregate", "horizon", *_COMPOSED)


@dataclass(frozen=True, kw_only=True)
class DecoderFacts:
    """What is so of a decoder. How it draws is its round's: ``mpg.decoding.engine.ROUNDS``.

    Attributes:
        target: what it samples, or approximates, see :mod:`mpg.laws.target`; ``None``: what ``aggregate`` names.
        exact: whether it samples its target exactly.
        text_depends_on: the settings that its texts depend on, which are part of its rows' identity; ``None``: it is
            used from Python only and has no rows.
        weighted: whether it reads weights: needs them, and runs and scores the models of their attributes.
        signed: whether weights may have any sign and sum: they are inferred, not a division of 1.
        one_attribute: whether just one weight may be above 0.
        told: whether it is the reference told in its prompt what the attributes are like, and no more; ``tell`` of its
            settings has no say.
        soup: whether it draws from one model, the reference with a weighted sum of the adapters' deltas, which reads
            one prompt. Its target is told of that model, in the reference's place.
        speculative: whether drafts are settled without loss, by whom ``drafter`` and how ``verification`` say.
        tv_bound_ends: the count in :class:`mpg.request.Completion` that leaves an approximate text without a bound on
            its distance from the target as soon as it is above 0.
    """

    name: str
    target: Literal["reference", "sum", "product", "pad", "routed"] | None = None
    exact: bool = True
    text_depends_on: tuple[str, ...] | None
    weighted: bool = True
    signed: bool = False
    one_attribute: bool = False
    told: bool = False
    soup: bool = False
    speculative: bool = False
    tv_bound_ends: Literal["n_chunks", "n_salvaged", "n_fallbacks"] | None = None


TABLE: dict[str, DecoderFacts] = {
    facts.name: facts
    for facts in (
        DecoderFacts(name="reference", target="reference", weighted=False, text_depends_on=_COMMON),
        DecoderFacts(name="single", target="sum", one_attribute=True, text_depends_on=None),
        DecoderFacts(
            name="scr",
            exact=False,
            tv_bound_ends="n_salvaged",
            text_depends_on=(*_COMMON, *_TARGET, "window", "max_tries", "salvage"),
        ),
        DecoderFacts(
            name="scr-exact", speculative=True, text_depends_on=(*_COMMON, *_TARGET, "drafter", "verification")
        ),
        DecoderFacts(name="routing", target="routed", text_depends_on=(*_COMMON, "horizon", *_COMPOSED)),
        DecoderFacts(name="mod", target="product", text_depends_on=(*_COMMON, *_COMPOSED)),
        DecoderFacts(name="soup", target="reference", soup=True, text_depends_on=(*_COMMON, *_COMPOSED)),
        DecoderFacts(name="pad", target="pad", text_depends_on=(*_COMMON, *_COMPOSED)),
        DecoderFacts(name="drift", target="product", signed=True, text_depends_on=(*_COMMON, *_COMPOSED)),
        DecoderFacts(
            name="sequence-rejection",
            exact=False,
            tv_bound_ends="n_fallbacks",
            text_depends_on=(*_COMMON, *_TARGET, "window", "max_tries"),
        ),
        DecoderFacts(
            name="best-of-n",
            exact=False,
            tv_bound_ends="n_chunks",  # always: it has no bound at all
            text_depends_on=(*_COMMON, *_TARGET, "window", "n_candidates"),
        ),
        DecoderFacts(name="prompting", target="reference", told=True, text_depends_on=_COMMON),
    )
}
DECODERS: tuple[str, ...] = tuple(TABLE)
EXACT_DECODERS: tuple[str, ...] = tuple(name for name, facts in TABLE.items() if facts.exact)
# Those that a job file may name.
JOB_DECODERS: tuple[str, ...] = tuple(name for name, facts in TABLE.items() if facts.text_depends_on is not None)


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """How to decode. Immutable, checked at once; lengths are in tokens.

    Attributes:
        name: a row of ``TABLE``.
        aggregate: ``sum`` (mixture of components) or ``product`` (token-normalised geometric one); of
            ``scr``, ``scr-exact``, ``sequence-rejection`` and ``best-of-n``, the others name their own.
        horizon: positions after which the sum's weights are reset; ``None`` = never. Part of the
            target, not a speed knob.
        chunk_len: drafted tokens a round, of ``scr`` and of block verification; for ``scr-exact``
            with token verification the most the engine may draft: there it never changes a text.
        max_new_tokens: longest response, its EOS included.
        strength: exponent of the density ratios, one for all or one per attribute; at most ``MOST_STRENGTH``.
        temperature: divides every policy's logits before its log-softmax. 0 is greedy: the argmax of the target's token
            law at temperature 1, the lowest id of several, whatever the seed; the books are kept at temperature 1.
            Exact decoders alone have it.
        top_k, top_p: truncate the *target's* token law (0 and 1.0: off); ``routing`` truncates each
            component, ``pad`` the reference, whose candidates it reweights.
        window: number of recent chunk ratios whose maximum is ``scr``'s bound M.
        max_tries: rejected chunks in a row after which ``scr`` draws one token from the target;
            responses drawn by ``sequence-rejection`` before one of them is picked in proportion to R.
        salvage: whether ``scr`` keeps the longest accepted prefix of a rejected chunk.
        drafter: of ``scr-exact``. ``mixture``: a component drawn from the mixture's weights drafts, so
            that drafts follow the sum itself and only truncation rejects any; the product has no
            components and drafts from the reference. ``reference``: ``pi_0``, as the paper's ``scr``.
            ``None``: the mixture where nothing is truncated, which is faster there, else the reference.
        verification: of ``scr-exact``: ``token`` by token, or a drafted ``block`` at a time (Sun et al.
            2024), which keeps more of the reference's drafts a round. All of these are lossless.
        n_candidates: responses of which ``best-of-n`` keeps one.
        tell: who reads what the attributes are like, in a prompt that the request brings: nobody (``none``); the
            ``reference``, so that the target is composed over the told reference with each attribute's ratio as it is
            without the words, ``pi_i / pi_0`` both under the attribute's own prompt and ``Request.prompts[UNTOLD]``;
            or ``all`` models, so that the ratios are between told ones. Whoever reads no weights tells nobody.
        token_log_ratios: whether completions say their log-ratios token by token, too. It changes no text.
    """

    name: str = "scr-exact"
    aggregate: str = "sum"
    horizon: int | None = 8
    chunk_len: int = 8
    max_new_tokens: int = 128
    strength: float | Mapping[str, float] = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    window: int = 64
    max_tries: int = 8
    salvage: bool = True
    drafter: str | None = None
    verification: str = "token"
    n_candidates: int = 8
    tell: str = "none"
    token_log_ratios: bool = False

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, remedy: str) -> None:
            if not ok:
                raise ValueError(f"decoder.{name}: {getattr(self, name)!r} {remedy}")

        check(self.name in TABLE, "name", f"is not a decoder; choose from {', '.join(TABLE)}")
        check(self.aggregate in AGGREGATES, "aggregate", "is not an aggregate; choose sum or product")
        check(self.horizon is None or self.horizon >= 1, "horizon", "must be at least 1, or null: never reset")
        check(self.chunk_len >= 1, "chunk_len", "must be at least 1")
        check(self.max_new_tokens >= 1, "max_new_tokens", "must be at least 1")
        strengths = self.strength.values() if isinstance(self.strength, Mapping) else [self.strength]
        check(all(0 < s <= MOST_STRENGTH for s in strengths), "strength", f"must be above 0, at most {MOST_STRENGTH:g}")
        check(
            self.temperature == 0 or (self.temperature >= LEAST_TEMPERATURE and math.isfinite(self.temperature)),
            "temperature",
            f"must be 0 (greedy) or at least {LEAST_TEMPERATURE:g}",
        )
        check(not self.greedy or self.facts.exact, "temperature", not_greedy(self.name))
        check(self.top_k >= 0, "top_k", "must be 0 (off) or more")
        check(0 < self.top_p <= 1, "top_p", "must be in (0, 1]")
        check(self.window >= 1, "window", "must be at least 1")
        check(self.max_tries >= 1, "max_tries", "must be at least 1")
        check(self.verification in VERIFICATIONS, "verification", "is not a verification; choose token or block")
        check(
            self.drafter is None or self.drafter in DRAFTERS, "drafter", "is not a drafter; choose mixture or reference"
        )
        check(self.n_candidates >= 1, "n_candidates", "must be at least 1")
        check(self.tell in TELLS, "tell", f"tells nobody that there is; choose from {', '.join(TELLS)}")
        check(not_told(self.name, self.tell) is None, "tell", not_told(self.name, self.tell) or "")

    def strength_of(self, attribute: str) -> float:
        """The exponent lambda of one attribute; 1 where a mapping does not name it."""
        if isinstance(self.strength, Mapping):
            return float(self.strength.get(attribute, 1.0))
        return float(self.strength)

    @property
    def truncates(self) -> bool:
        """Whether top-k or top-p cut the target's token law."""
        return self.top_k > 0 or self.top_p < 1.0

    @property
    def greedy(self) -> bool:
        """Whether every token is the target's most probable one."""
        return self.temperature == 0

    @property
    def tells(self) -> bool:
        """Whether the reference is told what the attributes are like."""
        return self.facts.told or (self.facts.weighted and self.tell != "none")

    @property
    def law_temperature(self) -> float:
        """What divides every policy's logits, in laws and in books."""
        return 1.0 if self.greedy else self.temperature

    @property
    def facts(self) -> DecoderFacts:
        """The decoder's row of the table."""
        return TABLE[self.name]

    @property
    def target(self) -> str:
        """What is sampled: ``reference``, ``sum``, ``product``, ``pad`` or ``routed``, see :mod:`mpg.laws.target`."""
        return self.facts.target or self.aggregate


def not_greedy(name: str) -> str:
    """What is said of temperature 0 to a decoder that only approximates its target: its texts have no argmax."""
    return f"is greedy, which {name!r} can't be: it accepts by chance; give one above 0, or decoder.name scr-exact"


def not_told(name: str, tell: str) -> str | None:
    """What is said of ``tell`` to a decoder that can't have it so; ``None``: it can."""
    facts = TABLE[name]
    if facts.told and tell != "none":
        return f"has no say in {name!r}, which tells the reference already and draws from no other model; make it none"
    if facts.soup and tell == "reference":
        return f"divides who is told, and {name!r} is one model, which reads one prompt; make it all, or take mod"
    return None


def drafter_of(settings: DecoderSettings) -> str:
    """Who drafts for a speculative decoder: ``mixture`` or ``reference``."""
    if settings.aggregate != "sum" or settings.verification != "token":
        return "reference"
    # What is greedy is the same truncated or not, and the mixture's largest token is mostly a component's.
    truncates = settings.truncates and not settings.greedy
    return settings.drafter or ("reference" if truncates else "mixture")


# What rows of one batch may differ in, see `in_common`.
OF_A_ROW: tuple[str, ...] = ("temperature", "top_k", "top_p", "strength", "horizon", "max_new_tokens")


def in_common(settings: DecoderSettings) -> Hashable:
    """What rows that are decoded in one batch must be alike in: equal for settings that go together.

    That is all but ``OF_A_ROW``, and what these make of a row's round: who drafts, whether drafts of the mixture are
    tested, and whether ``routing`` draws an attribute or takes the sum's largest token.
    """
    defaults = {field.name: field.default for field in fields(settings) if field.name in OF_A_ROW}
    drafter = drafter_of(settings) if settings.facts.speculative else ""
    tested = drafter == "mixture" and (settings.truncates or settings.greedy)
    routed = settings.target == "routed" and not settings.greedy
    return replace(settings, **defaults), drafter, tested, routed  # type: ignore[arg-type]


def settings_of_each(settings: DecoderSettings | Sequence[DecoderSettings], n: int) -> list[DecoderSettings]:
    """Of each of ``n`` requests, from one for all or one for each.

    Raises:
        ValueError: another number of them, or something else among them.
    """
    if isinstance(settings, DecoderSettings):
        return [settings] * n
    if not isinstance(settings, Iterable):
        raise ValueError(f"settings: {settings!r} is not a DecoderSettings; give one for all, or one for each request")
    each = list(settings)
    if len(each) != n:
        raise ValueError(f"settings: {len(each)} given for {n} requests; give one for all, or one for each request")
    for index, own in enumerate(each):
        if not isinstance(own, DecoderSettings):
            raise ValueError(f"settings[{index}]: {own!r} is not a DecoderSettings; give one for each request")
    return each
