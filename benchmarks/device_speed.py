"""Decoders side by side on a device, over random models of given shapes: the timed half of ``benchmarks.gpu``."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.device_clock import Clock, Log, OutOfTime, describe
from benchmarks.device_profile import kernels, synchronisations
from benchmarks.random_llama import adapter, bank_of, llama, scale_for, sharpen
from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.decoding.rounds import mixture
from mpg.models.backbone import TransformersBackbone

RANK = 16
# The mixture's drafts, every lane fed at each token, however many there are.
TOGETHER = "scr-exact, all lanes at once"
GENERATE = "generate"
# (settings, whether it needs adapters) of what is measured of ours.
OURS: dict[str, dict[str, Any]] = {
    "scr-exact": {},
    "scr-exact, product, top-p .95": {"aggregate": "product", "top_p": 0.95},
    "reference": {"name": "reference"},
    "mod, top-p .95": {"name": "mod", "top_p": 0.95},
    "scr-exact, top-p .95": {"top_p": 0.95},
    TOGETHER: {},
}
MAIN = ("scr-exact", "scr-exact, product, top-p .95", "reference")


@dataclass(frozen=True)
class Made:
    """By one run: tokens; the share of drafts accepted, if any were tested; its time, where it was taken inside."""

    tokens: int
    accepted: float | None = None
    seconds: float | None = None


class Speed:
    """The models of one shape at a time, and what is run over them."""

    def __init__(self, device: str, log: Log, clock: Clock, *, small: bool, top_third: bool = False) -> None:
        self.device, self.log, self.clock = device, log, clock
        self.small, self.cuda, self.top_third = small, device == "cuda", top_third
        self.n = 8 if small else 64  # tokens of a prompt, and of a response
        self.plain: Any = None
        self.bank: ModelBank | None = None
        self.shape, self.scale, self.n_adapters = "", 1.0, 0
        self.speeds: dict[tuple[str, int], float] = {}

    def run(self) -> None:
        """Most important first; a case that fails, or that there is no time for, leaves the rest as it is."""
        shapes = {"small": [(2, (1, 4))]} if self.small else {
            "8B": [(4, (32, 1)), (1, (32, 1))],
            "1B": [(4, (32, 1, 128)), (8, (32, 1, 128)), (1, (32, 1, 128))],
        }  # fmt: skip
        self.log(
            f"{'shape':7}{'N':>3}{'batch':>6}  {'decoder':32}{'tokens/s':>10}{'ratio':>7}{'added GiB':>10}"
            f"{'seconds':>9}{'accepted':>9}",
            kind="speed-header",
        )
        for shape, plan in shapes.items():
            self.shape, self.plain, self.bank, self.speeds = shape, None, None, {}
            self.free()
            if not self.attempt(f"{shape}: models", 60.0, self.make_plain):
                continue
            for place, (n_adapters, batches) in enumerate(plan):
                self.n_adapters = n_adapters
                for batch in batches:
                    if (GENERATE, batch) not in self.speeds:
                        self.case(GENERATE, batch, self.generate)
                if not self.attempt(f"{shape}: {n_adapters} adapters", 60.0, self.make_bank):
                    continue
                for batch in batches:
                    for name in MAIN:
                        if name != "reference" or place == 0:
                            self.case(name, batch, self.ours(name))
                if place == 0:
                    self.look_inside(batches[0])
                    for batch in batches[: 1 if self.small else 2]:
                        self.case("continuous batching", batch, self.continuous)
                    for name in [name for name in OURS if name not in MAIN]:
                        self.case(name, batches[0], self.ours(name))
                    if shape == "8B" and self.clock.left > 200:  # a minute of compiling, maybe
                        self.case("generate, static cache, compiled", batches[0], self.compiled)

    # ------------------------------------------------------------------ models

    def make_plain(self) -> str:
        dtype = torch.bfloat16
        self.plain = llama(self.shape, dtype, self.device)
        entropy = sharpen(self.plain)
        model = llama(self.shape, dtype, self.device)
        sharpen(model)
        bank = bank_of(model, [adapter(model, seed=0, rank=RANK, first=self.first_of(model))])
        self.scale, apart = scale_for(bank)
        return f"laws of {entropy:.2f} nats; components {apart:.3f} from the reference (B times {self.scale:.3g})"

    def make_bank(self) -> str:
        self.bank = None
        self.free()
        model = llama(self.shape, torch.bfloat16, self.device)  # of the same seed as `plain`
        sharpen(model)
        how: dict[str, Any] = {"rank": RANK, "scale": self.scale, "first": self.first_of(model)}
        loras = [adapter(model, seed=i, **how) for i in range(self.n_adapters)]
        self.bank = bank_of(model, loras)
        return f"rank {RANK}, all linear layers" + (f" from layer {how['first']} up" if how["first"] else "")

    def first_of(self, model: Any) -> int:
        """The lowest layer that adapters change."""
        n_layers: int = model.config.num_hidden_layers
        return n_layers - max(1, n_layers // 3) if self.top_third else 0

    def free(self) -> None:
        """Give back what no case needs, the engine's cache that waits for its next session included."""
        for backbone in self.bank.backbones if self.bank else ():
            assert isinstance(backbone, TransformersBackbone)
            backbone._spare = None
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    # ------------------------------------------------------------------ what is run: (batch, tokens) -> Made

    def prompts(self, batch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(11)
        size = self.plain.config.vocab_size
        return torch.randint(3, size, (batch, self.n), generator=generator).tolist()

    @torch.inference_mode()
    def generate(self, batch: int, n: int, **options: Any) -> Made:
        ids = torch.tensor(self.prompts(batch), device=self.device)
        out = self.plain.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=n, min_new_tokens=n, eos_token_id=None, pad_token_id=0, **options,
        )  # fmt: skip
        return Made(batch * (out.shape[1] - ids.shape[1]))

    def compiled(self, batch: int, n: int) -> Made:
        return self.generate(batch, n, cache_implementation="static")

    def continuous(self, batch: int, n: int) -> Made:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        before = self.plain.config._attn_implementation
        settings = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=n, eos_token_id=-1, pad_token_id=0
        )
        prompts = self.prompts(batch)
        try:
            with self.plain.continuous_batching_context_manager(
                generation_config=settings,
                continuous_batching_config=ContinuousBatchingConfig(
                    max_memory_percent=0.05 if self.small else 0.3, allow_block_sharing=False
                ),
                block=True,
                timeout=5,
            ) as manager:  # CUDA graphs are captured on entry
                for _ in range(2):
                    self.synchronise()
                    began, tokens, ended = time.perf_counter(), 0, 0
                    manager.add_requests(inputs=prompts, max_new_tokens=n)
                    while ended < batch:
                        done = manager.get_result(timeout=1)
                        if done is not None and done.is_finished():
                            tokens, ended = tokens + len(done.generated_tokens), ended + 1
                        elif done is None and not manager.is_running():
                            raise RuntimeError("its thread has ended")
                    seconds = time.perf_counter() - began
        finally:
            self.plain.set_attn_implementation(before.removeprefix("paged|"))
        return Made(tokens, seconds=seconds)

    def ours(self, name: str) -> Callable[[int, int], Made]:
        def run(batch: int, n: int) -> Made:
            assert self.bank is not None
            settings = DecoderSettings(**OURS[name] | {"max_new_tokens": n})
            names = self.bank.attributes
            weights = dict.fromkeys(names, 1 / len(names)) if settings.facts.weighted else {}
            asked = [Request(prompt, weights, seed) for seed, prompt in enumerate(self.prompts(batch))]
            few, mixture._FEW_LANES = mixture._FEW_LANES, 1 << 30 if name == TOGETHER else mixture._FEW_LANES
            try:
                done = list(decode(self.bank, asked, settings, batch_size=batch))
            finally:
                mixture._FEW_LANES = few
            rates = [each.acceptance_rate for each in done if each.acceptance_rate is not None]
            return Made(sum(len(each.token_ids) for each in done), sum(rates) / len(rates) if rates else None)

        return run

    # ------------------------------------------------------------------ measuring

    def case(self, name: str, batch: int, run: Callable[[int, int], Made]) -> None:
        """A warm-up of few tokens, one measured run, one line."""
        what = {"shape": self.shape, "adapters": self.n_adapters, "batch": batch, "decoder": name}
        # Neither the bare model nor what does without adapters has a number of them.
        told = f"{self.shape:7}{self.n_adapters if name in OURS else '':>3}{batch:6}  {name:32}"

        def measured() -> str:
            self.free()
            if self.cuda:
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if self.cuda else 0
            if name != "continuous batching":  # which warms up inside
                run(batch, self.n if name.startswith(GENERATE) else 4)  # a compiled one knows one length of cache
            self.synchronise()
            began = time.perf_counter()
            made = run(batch, self.n)
            self.synchronise()
            seconds = made.seconds or time.perf_counter() - began
            speed = made.tokens / seconds
            if name == GENERATE:
                self.speeds[name, batch] = speed
            base = self.speeds.get((GENERATE, batch))
            added = (torch.cuda.max_memory_allocated() - before) / 2**30 if self.cuda else 0.0
            ratio = None if base is None else speed / base
            self.log(
                f"{told}{speed:10.1f}{'' if ratio is None else f'{ratio:.2f}':>7}{added:10.2f}{seconds:9.2f}"
                f"{'' if made.accepted is None else f'{made.accepted:.3f}':>9}",
                **what, kind="speed", tokens=made.tokens, seconds=seconds, speed=speed, ratio=ratio, added_gib=added,
                accepted=made.accepted,
            )  # fmt: skip
            return ""

        self.attempt(" ".join(told.split()), 75.0, measured)

    def look_inside(self, batch: int) -> None:
        """Where the host waits for the device, kernels a token, and where the device's time goes."""
        cases = {GENERATE: self.generate, **{name: self.ours(name) for name in MAIN[:2]}}
        for name, run in cases.items():

            def looked(name: str = name, run: Any = run) -> str:
                if self.cuda:
                    counts = synchronisations(lambda n: run(batch, n), 8, 16)
                    lines = "; ".join(f"{place} {count:.1f}" for place, count in counts[1][:12])
                    self.log(
                        f"{name}, batch {batch}: {counts[0]:.1f} synchronisations a token-step: {lines}",
                        kind="synchronisations", decoder=name, batch=batch, shape=self.shape, a_step=counts[0],
                        places=counts[1],
                    )  # fmt: skip
                found = kernels(lambda n: run(batch, n), 8, 16, cuda=self.cuda)
                told = "; ".join(f"{kernel[:60]} {ms:.2f}" for kernel, ms in found["most"])
                self.log(
                    f"{name}, batch {batch}: {found['a_step']:.0f} kernels a token-step, the device busy "
                    f"{found['busy_ms']:.2f} ms of it; most ms: {told}",
                    kind="kernels", decoder=name, batch=batch, shape=self.shape, **found,
                )  # fmt: skip
                return ""

            self.attempt(f"{self.shape}: inside {name}", 30.0, looked)

    def attempt(self, what: str, most: float, act: Callable[[], str]) -> bool:
        """Do it in at most so many seconds, or say why it was not done."""
        if self.clock.left < 5:
            self.log(f"{what}: left out, no time", kind="left-out", what=what)
            return False
        try:
            with self.clock.limit(most):
                told = act()
        except (Exception, OutOfTime) as error:
            self.log(f"{what}: {describe(error)}", kind="failed", what=what, error=describe(error))
            return False
        if told:
            self.log(f"{what}: {told}", kind="made", what=what, told=told)
        return True

    def synchronise(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
