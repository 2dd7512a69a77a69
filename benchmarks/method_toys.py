"""The laws of docs/method.md on toys of three tokens, enumerated without a model: ``python -m benchmarks.method``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from evaluation.tables import aligned
from mpg import UNTOLD, DecoderSettings, FunctionModel, ModelBank
from mpg.oracle.law import law
from mpg.oracle.threshold import threshold_law

Response = tuple[int, ...]
Law = Mapping[Response, float]

# Tokens of the toy of two traits. Its models do not look at the text, so that whatever a text's tokens know of each
# other is the aggregate's doing; a prompt of TOLD is what the reference reads where it is told of both traits.
NEUTRAL, E, J = 0, 1, 2
UNTOLD_PROMPT, TOLD_PROMPT = [0], [1]
LENGTH = 5
_REFERENCE, _TOLD_REFERENCE = (0.6, 0.2, 0.2), (0.5, 0.25, 0.25)
TRAIT_E, TRAIT_J = (0.4, 0.5, 0.1), (0.4, 0.1, 0.5)
# pi_0 / r_E, normalised: what the opposite of E's model is.
OPPOSITE_OF_E = (0.9 / 1.38, 0.08 / 1.38, 0.4 / 1.38)
WEIGHTS = {"E": 0.5, "J": 0.5}
# More is as good as certain which attribute wrote a text.
CERTAIN = 0.9

# The toy of `scr`: logits that depend on the last two tokens and the length; an attribute's are the reference's and
# SPREAD times normal ones, so that log R of a text spreads about as that of 8 tokens under the adapters that ship.
SPREAD = 0.8
SCR_LENGTH = 4
BOUNDS = (1.5, 2.0, 4.0, 8.0, None)  # None: the online one


def constant(law_of_token: Sequence[float], told: Sequence[float] | None = None) -> FunctionModel:
    """A model with one law everywhere, and another one where it is told."""
    untold = torch.tensor(law_of_token, dtype=torch.float64).log()
    other = untold if told is None else torch.tensor(told, dtype=torch.float64).log()

    def fn(tokens: Tensor) -> Tensor:
        return torch.where(tokens[:, :1] == TOLD_PROMPT[0], other, untold)  # [batch, vocab]

    return FunctionModel(fn, vocab_size=3, eos_id=3)  # an end that nothing writes


def two_traits(e: Sequence[float] = TRAIT_E, j: Sequence[float] = TRAIT_J) -> ModelBank:
    """The reference and two attributes, each of which says its own token more often and the other's less."""
    models = {"E": constant(e), "J": constant(j)}
    return ModelBank.from_functions(reference=constant(_REFERENCE, _TOLD_REFERENCE), attributes=models)


def in_context() -> ModelBank:
    """The toy of ``scr``: reference and two attributes over three tokens, whose laws depend on the text."""
    tables = torch.randn(3, 8, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(table: Tensor) -> FunctionModel:
        def fn(tokens: Tensor) -> Tensor:
            before = tokens[:, -2] if tokens.shape[1] > 1 else torch.zeros_like(tokens[:, -1])
            return table[tokens.shape[1] % 8, before, tokens[:, -1]]  # [batch, vocab]

        return FunctionModel(fn, vocab_size=3, eos_id=3)

    e, j = (model(tables[0] + SPREAD * delta) for delta in tables[1:])
    return ModelBank.from_functions(reference=model(tables[0]), attributes={"E": e, "J": j})


def law_of(
    bank: ModelBank,
    length: int = LENGTH,
    *,
    told: bool = False,
    weights: Mapping[str, float] = WEIGHTS,
    prompts: Mapping[str, Sequence[int]] | None = None,
    **settings: object,
) -> dict[Response, float]:
    """A target's law over texts of a length; the sum that is never reset, unless settings say otherwise."""
    wanted = DecoderSettings(**{"horizon": None, "max_new_tokens": length} | settings)
    own = dict.fromkeys((UNTOLD, *WEIGHTS), UNTOLD_PROMPT) if wanted.tell == "reference" else prompts
    asked = weights if wanted.facts.weighted else {}
    return law(bank, TOLD_PROMPT if told else UNTOLD_PROMPT, asked, wanted, own)


def total_variation(one: Law, other: Law) -> float:
    """Half the L1 distance."""
    return 0.5 * math.fsum(abs(one.get(text, 0.0) - other.get(text, 0.0)) for text in {*one, *other})


def mean(of: Law, what: Callable[[Response], float]) -> float:
    """Expectation under a law."""
    return math.fsum(p * what(text) for text, p in of.items())


def by_position(q: Sequence[float], text: Response) -> float:
    """A text's probability under a model with one law everywhere."""
    return math.prod(q[token] for token in text)


def one_wrote_it(text: Response) -> bool:
    """Whether the posterior of an attribute under the sum that is never reset says as good as certainly which."""
    e, j = by_position(TRAIT_E, text), by_position(TRAIT_J, text)
    return max(e, j) / (e + j) > CERTAIN


def traits_row(name: str, of: Law) -> list[str]:
    """A target's line: tokens of E a text, correlation of both counts, texts with two of each, those that one attribute
    wrote, and ``KL(target || reference)`` of a text in nats."""
    e, j = (mean(of, lambda text, x=x: text.count(x)) for x in (E, J))
    covariance = mean(of, lambda text: (text.count(E) - e) * (text.count(J) - j))
    variances = [mean(of, lambda text, x=x, m=m: (text.count(x) - m) ** 2) for x, m in ((E, e), (J, j))]
    return [
        name, f"{e:.2f}", f"{covariance / math.sqrt(math.prod(variances)):+.2f}",
        f"{mean(of, lambda text: text.count(E) >= 2 and text.count(J) >= 2):.3f}", f"{mean(of, one_wrote_it):.3f}",
        f"{abs(math.fsum(p * math.log(p / by_position(_REFERENCE, text)) for text, p in of.items())):.2f}",
    ]  # fmt: skip


def traits_table() -> str:
    """Sum by horizon, product by strength, with and without telling the reference."""
    bank, told = two_traits(), {"told": True, "tell": "reference"}
    laws = {"reference": law_of(bank, name="reference")}
    laws |= {f"sum, horizon {h or 'none'}": law_of(bank, horizon=h) for h in (None, 3, 1)}
    laws |= {f"product, strength {s}": law_of(bank, aggregate="product", strength=float(s)) for s in (1, 2)}
    laws["told reference"] = law_of(bank, told=True, name="reference")
    laws["told + sum, horizon none"] = law_of(bank, **told)
    laws["told + product, strength 1"] = law_of(bank, aggregate="product", **told)
    header = ["target", "E a text", "corr(E, J)", "2 E and 2 J", "one wrote it", "KL"]
    return aligned(header, [traits_row(*each) for each in laws.items()])


def statements() -> list[str]:
    """What the document says beside its tables, a line each."""
    bank, opposed, short = two_traits(), two_traits(j=OPPOSITE_OF_E), {"length": 4}
    e, j = (law_of(bank, name="single", weights={name: 1.0}, **short) for name in "EJ")
    product: dict[str, object] = {"aggregate": "product", **short}
    halves, block = law_of(bank, horizon=2, **short), law_of(bank, 2)
    lines = [
        ("the sum without horizon against the mixture of whole texts",
         total_variation(law_of(bank, **short), {text: (e[text] + j[text]) / 2 for text in e})),
        ("the sum of horizon 2 against blocks of 2, each a mixture",
         total_variation(halves, {one + two: p * q for one, p in block.items() for two, q in block.items()})),
        ("opposite attributes: their sum against the reference",
         total_variation(law_of(opposed, **short), law_of(opposed, name="reference", **short))),
        ("opposite attributes: their product against the reference",
         total_variation(law_of(opposed, **product), law_of(opposed, name="reference", **short))),
        *_told_over_told(bank, product),
        *_in_context(),
    ]  # fmt: skip
    return [f"{what}: {value:.3f}" for what, value in lines]


def _told_over_told(bank: ModelBank, product: Mapping[str, object]) -> list[tuple[str, float]]:
    """Telling the reference, with ratios over the told reference as well: what must not be done."""
    over: dict[str, object] = {"told": True, "prompts": dict.fromkeys(WEIGHTS, UNTOLD_PROMPT)}
    found = []
    for what, settings in (
        ("the sum, strength 1", {"length": 4}),
        ("the product, strength 1", product),
        ("the product, strength 2", {**product, "strength": 2.0}),
    ):
        untold, naive = law_of(bank, **settings), law_of(bank, **over, **settings)
        found.append(
            (f"told, ratios over the told reference, {what}: against the untold", total_variation(untold, naive))
        )
    e = [mean(each, lambda text: text.count(E)) for each in (untold, naive)]
    return [*found, ("the same, strength 2: tokens of E a text, untold", e[0]), ("the same, so told", e[1])]


def _in_context() -> list[tuple[str, float]]:
    """What a toy says whose models look at the text."""
    bank, length = in_context(), SCR_LENGTH
    reference = law_of(bank, length, name="reference")
    q = [law_of(bank, length, name="single", weights={name: 1.0}) for name in WEIGHTS]
    ratios = {text: [each[text] / p for each in q] for text, p in reference.items()}
    by_token = law_of(bank, length, aggregate="product", strength=2.0)
    whole = {text: p * math.prod(ratios[text]) for text, p in reference.items()}
    z = math.fsum(whole.values())
    target = law_of(bank, length)
    hard = {text: p * (target[text] >= p) for text, p in reference.items()}
    kept = math.fsum(hard.values())
    return [
        ("E[R] under the reference, strength 1", mean(reference, lambda text: sum(ratios[text]) / 2)),
        ("E[R] if R were sum_i alpha_i r_i^2", mean(reference, lambda text: sum(r * r for r in ratios[text]) / 2)),
        ("the product, token by token, against pi_0 r_E r_J of whole texts", total_variation(
            by_token, {text: p / z for text, p in whole.items()})),
        ("keeping texts with R >= 1, always: against the sum", total_variation(
            {text: p / kept for text, p in hard.items()}, target)),
    ]  # fmt: skip


def scr_table() -> str:
    """``scr`` by chunk length and bound, and the drafts that ``scr-exact`` keeps of the same reference."""
    bank = in_context()
    target, reference = law_of(bank, SCR_LENGTH), law_of(bank, SCR_LENGTH, name="reference")
    lines = []
    for chunk_len in (1, 2, 4):
        for bound in BOUNDS:
            tries = 8 if bound is None else None
            whole, salvaged = (
                threshold_law(target, reference, chunk_len=chunk_len, bound=bound, salvage=salvage, max_tries=tries)
                for salvage in (False, True)
            )
            lines.append([
                f"{chunk_len}", f"{bound or 'online'}", f"{whole.acceptance:.3f}",
                f"{whole.chunks * chunk_len:.1f}", f"{whole.lost_mass:.3f}",
                f"{total_variation(whole.law, target):.3f}", f"{total_variation(salvaged.law, target):.3f}",
                f"{total_variation(whole.law, reference):.3f}",
            ])  # fmt: skip
    header = ["chunk", "M", "accepted", "drafts", "lost mass", "TV", "TV, salvage", "TV to pi_0"]
    log_r = {text: math.log(p / reference[text]) for text, p in target.items()}
    centre = mean(reference, log_r.__getitem__)
    spread = math.sqrt(mean(reference, lambda text: (log_r[text] - centre) ** 2))
    said = f"texts of {SCR_LENGTH}: sd log R {spread:.2f}, largest R {math.exp(max(log_r.values())):.1f}, "
    said += f"TV of target and reference {total_variation(target, reference):.3f}; scr-exact keeps "
    said += f"{kept_by_token(target, reference) / SCR_LENGTH:.3f} of the reference's drafts, token by token, at TV 0"
    return f"{aligned(header, lines)}\n{said}"


def kept_by_token(target: Law, reference: Law) -> float:
    """Drafts that speculative sampling keeps in a text: ``E_T[sum_t sum_x min(T(x | s), pi_0(x | s))]``."""
    laws: list[dict[Response, float]] = [{}, {}]
    for found, of in zip(laws, (target, reference), strict=True):
        for text, p in of.items():
            for n in range(len(text) + 1):
                found[text[:n]] = found.get(text[:n], 0.0) + p
    t, pi_0 = laws
    return math.fsum(min(p, t[text[:-1]] * pi_0[text] / pi_0[text[:-1]]) for text, p in t.items() if text)


def report() -> str:
    """All of it, as printed."""
    return "\n\n".join([traits_table(), "\n".join(statements()), scr_table()])
