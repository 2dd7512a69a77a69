"""The model bank: reference, preference models and their own references behind one handle."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpg.laws.layout import Layout
from mpg.models.backbone import Backbone
from mpg.models.errors import BankError
from mpg.models.functions import FunctionBackbone, FunctionModel, SoupFunction
from mpg.models.hub import Place
from mpg.models.invocation import check_prompts, invocations_of
from mpg.models.lanes import BankSession
from mpg.models.load import load_models
from mpg.models.template import PLAIN, ChatStyle
from mpg.request import Request, check_request
from mpg.settings import UNTOLD, DecoderSettings


class ModelBank:
    """All models of a process. Branch 0 is the reference ``pi_0``; see :class:`mpg.laws.layout.Layout`.

    Make one with :meth:`load` (transformers models and LoRA adapters) or :meth:`from_functions`.
    """

    def __init__(
        self,
        *,
        backbones: Sequence[Backbone],
        layout: Layout,
        vocab_size: int,
        eos_ids: frozenset[int],
        max_positions: int | None = None,
        tokenizer: Any = None,
        n_embeddings: int | None = None,
    ) -> None:
        self.backbones = tuple(backbones)
        self.layout = layout
        self.vocab_size = vocab_size
        # Tokens that every model can read; a tokenizer may have more, and a head (of a padded vocabulary) fewer.
        self.n_embeddings = n_embeddings  # tokens that the models can read; None: functions, whatever they take
        self.eos_ids = eos_ids
        self.max_positions = max_positions
        self.tokenizer = tokenizer
        self.device = self.backbones[0].device
        # What a prompt must hold for an adapter to be on (aLoRA): per branch, mostly nothing; and by attribute.
        self.branch_invocations: tuple[tuple[int, ...], ...] = tuple(
            tokens
            for each in self.backbones
            for tokens in ((), *(invocations_of(each) or [()] * (each.n_branches - 1)))
        )
        learned = [getattr(each, "n_positions", None) for each in self.backbones]
        self._learned_positions = min((each for each in learned if each is not None), default=None)
        # What makes a text's length matter to its positions (:mod:`mpg.models.positions`), per branch; mostly nothing.
        self.branch_positions = tuple(
            getattr(each, "positions", None) for each in self.backbones for _ in range(each.n_branches)
        )
        self.invocations: dict[str, list[tuple[int, ...]]] = {}
        for name, *branches in zip(layout.attributes, layout.policy, layout.reference, strict=True):
            found = [self.branch_invocations[branch] for branch in branches if self.branch_invocations[branch]]
            self.invocations |= {name: found} if found else {}

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.layout.attributes

    def session(
        self,
        slots: int,
        capacity: int,
        *,
        soup: bool = False,
        needs: Sequence[Sequence[int]] | None = None,
        one_prompt: bool = False,
    ) -> BankSession:
        """Room for ``slots`` rows of up to ``capacity`` tokens in every branch; with ``soup``, in that one too.

        Args:
            needs: the branches of each row that may come (the soup is the one past the last): room for any ``slots``
                of these, which may be far less than for every branch.
            one_prompt: whether all branches of a row read the same; takes less memory.
        """
        if needs is None:
            needs = [range(self.layout.n_branches + soup)] * slots
        more: Any = {"vocab_size": self.vocab_size, "one_prompt": one_prompt}
        return BankSession(self.backbones, self.layout, slots, capacity, needs=needs, **more)

    def under(self, settings: DecoderSettings) -> ModelBank:
        """The bank as a decoder with these settings takes it, over the same models.

        Where the reference is told what the attributes are like it is there twice, told and untold: see
        :class:`mpg.request.Request`.
        """
        if not settings.tells:
            return self
        found = copy.copy(self)
        found.layout = self.layout.with_untold(divides=settings.tell == "reference")
        found.branch_invocations = (*self.branch_invocations, ())
        found.branch_positions = (*self.branch_positions, self.branch_positions[0])
        return found

    def check(self, request: Request, settings: DecoderSettings) -> None:
        """Raise ValueError, naming field, value and remedy, where a request can't be decoded by this bank.

        See :func:`mpg.request.check_request`; and a prompt must hold what an adapter waits for (aLoRA).
        """
        check_request(request, self.attributes, settings, self.n_embeddings)
        if self._learned_positions is not None:
            longest = (
                max(len(request.prompt_of(name)) for name in (None, UNTOLD, *self.attributes)) + settings.max_new_tokens
            )
            if longest > self._learned_positions:
                raise ValueError(
                    f"prompt_ids: a prompt and max_new_tokens {settings.max_new_tokens} make {longest} tokens, and the "
                    f"models have {self._learned_positions} positions; shorten one of them"
                )
        check_prompts(self.invocations, request.weights if settings.facts.weighted else (), request.prompt_of)

    @property
    def can_mix(self) -> bool:
        """Whether a weighted sum of the attributes' deltas is a model: adapters over the reference, all of them."""
        first = self.backbones[0]
        if isinstance(first, FunctionBackbone) and first.soup is None:
            return False
        return not any(self.layout.reference) and max(self.layout.policy, default=0) < first.n_branches

    def soup_mix(self, weights: Mapping[str, float], strengths: Sequence[float]) -> Tensor:
        """Coefficients ``weight * strength`` of the first backbone's adapters in a soup, float64 ``[adapters]``.

        The weights are taken as they are given, which may miss 1 by ``WEIGHT_TOLERANCE``.
        """
        mix = torch.zeros(self.backbones[0].n_branches - 1, dtype=torch.float64)
        for name, policy, strength in zip(self.attributes, self.layout.policy, strengths, strict=True):
            mix[policy - 1] = weights.get(name, 0.0) * strength
        return mix

    @classmethod
    def from_functions(
        cls,
        *,
        reference: FunctionModel,
        attributes: Mapping[str, FunctionModel],
        references: Mapping[str, FunctionModel] | None = None,
        soup: SoupFunction | None = None,
    ) -> ModelBank:
        """A bank of functions, for tests and small experiments.

        Args:
            reference: ``pi_0``.
            attributes: ``pi_i`` by name.
            references: ``rho_i`` of the attributes that have their own.
            soup: coefficients, in the order of ``attributes`` -> the model that decoder ``soup`` decodes from.
        """
        own = dict(references or {})
        _check_references(attributes, own)
        models = [reference, *attributes.values(), *own.values()]
        for model in models[1:]:
            if (model.vocab_size, model.eos_id) != (reference.vocab_size, reference.eos_id):
                raise BankError("all models of a bank share one vocabulary and one EOS id")
        return cls(
            backbones=[FunctionBackbone(models, soup)],
            layout=_layout(list(attributes), list(own)),
            vocab_size=reference.vocab_size,
            eos_ids=frozenset({reference.eos_id}),
        )

    @classmethod
    def load(
        cls,
        model: str | Path | Place,
        attributes: Mapping[str, str | Path | Place],
        references: Mapping[str, str | Path | Place] | None = None,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        style: ChatStyle = PLAIN,
        max_memory: Mapping[torch.device, int] | None = None,
    ) -> ModelBank:
        """Load a transformers model with LoRA adapters over it and, where given, whole models.

        Args:
            model: embedded id, Hub id or folder of the reference.
            attributes: name -> PEFT LoRA folder or Hub id (shares the reference's weights), or a
                whole model's folder or Hub id (its own weights; same tokenizer); as a :class:`mpg.models.hub.Place`
                with its revision and subfolder.
            references: name -> the model ``rho_i`` an attribute was trained from, where it is not
                the reference: likewise an adapter or a whole model.
            revision: of the reference, on the Hub.
            dtype: of the weights and the cache.
            style: what the chat template is told beside the messages: it may close turns, which ends texts, by that.
            max_memory: devices that models larger than one may span, ``device`` first, and the bytes of each that
                weights may take (:mod:`mpg.models.spanning`).

        Raises:
            BankError: an adapter for another base, a model with another tokenizer, weights that are
                not safetensors.
        """
        _check_references(attributes, references or {})
        loaded = load_models(
            model, attributes, references or {}, revision=revision, dtype=dtype, device=device, style=style,
            max_memory=max_memory,
        )  # fmt: skip
        return cls(**vars(loaded))


def _layout(attributes: list[str], own: list[str]) -> Layout:
    """Branches in the order reference, attributes, own references."""
    rho = {name: 1 + len(attributes) + i for i, name in enumerate(own)}
    return Layout(
        attributes=tuple(attributes),
        policy=tuple(range(1, 1 + len(attributes))),
        reference=tuple(rho.get(name, 0) for name in attributes),
    )


def _check_references(attributes: Mapping[str, Any], references: Mapping[str, Any]) -> None:
    for name in references:
        if name not in attributes:
            raise BankError(f"references: {name!r} is not one of the attributes ({', '.join(attributes)})")
