"""Models and adapters from folders and the Hub to backbones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mpg.laws.layout import Layout
from mpg.models.adapter_files import Lora, check_base, check_fit, read_lora
from mpg.models.backbone import Backbone, TransformersBackbone
from mpg.models.embedded import resolve
from mpg.models.ends import Ends, ends_of
from mpg.models.errors import BankError
from mpg.models.hub import HubUnreachable, Place, adapter_folder, one_line
from mpg.models.positions import max_positions_of
from mpg.models.pretrained import check_files, config_of, load_tokenizer, load_weights, skeleton_of
from mpg.models.probe import check_laws, own_laws
from mpg.models.served import check_device
from mpg.models.template import PLAIN, ChatStyle


@dataclass(frozen=True)
class Loaded:
    """What a :class:`mpg.ModelBank` is made of."""

    backbones: Sequence[Backbone]
    layout: Layout
    vocab_size: int
    n_embeddings: int
    eos_ids: frozenset[int]
    max_positions: int | None
    tokenizer: Any


def load_models(
    model: str | Path | Place,
    attributes: Mapping[str, str | Path | Place],
    references: Mapping[str, str | Path | Place],
    *,
    revision: str | None,
    dtype: torch.dtype,
    device: torch.device | str,
    style: ChatStyle,
    max_memory: Mapping[torch.device, int] | None = None,
) -> Loaded:
    """See :meth:`mpg.ModelBank.load`; ``references`` are of some of the attributes."""
    reference = Place.of(model) if revision is None or isinstance(model, Place) else Place(str(model), revision)
    tokenizer = load_tokenizer(reference)
    check_device(torch.device(device).type)
    sources = _sources(attributes, references)
    adapters, wholes = _apart(sources)
    loras = [read_lora(folder) for folder in adapters.values()]  # before a model is loaded, which takes longer
    for name, lora in zip(adapters, loras, strict=True):
        check_base(sources[name], lora.config, reference)
    sizes = [vocab_size_of(config_of(place)) for place in (reference, *wholes.values())]
    for source, size in zip(wholes.values(), sizes[1:], strict=True):
        _check_same_vocabulary(tokenizer, source, size, sizes[0])
    room = None if max_memory is None else dict(max_memory)
    base = load_weights(reference, dtype, device, room)
    backbones = [_backbone(reference, base, loras)]
    backbones += [_backbone(source, load_weights(source, dtype, device, room)) for source in wholes.values()]
    branch = {name: i for i, name in enumerate([*adapters, *wholes], start=1)}
    return Loaded(
        backbones=backbones,
        layout=Layout(
            attributes=tuple(attributes),
            policy=tuple(branch[name] for name in attributes),
            reference=tuple(branch.get(_own_reference(name), 0) for name in attributes),
        ),
        vocab_size=min(sizes),  # the laws' own: what a model has beyond it is padding, cut before its log-softmax
        n_embeddings=min(embeddings_of(backbone.model) for backbone in backbones),
        eos_ids=ends_of(base.generation_config, base.config, tokenizer, embeddings_of(base), style).ids,
        max_positions=min((n for b in backbones if (n := max_positions_of(b.model.config))), default=None),
        tokenizer=tokenizer,
    )


def _backbone(place: Place, model: Any, adapters: Sequence[Lora] = ()) -> TransformersBackbone:
    """A loaded model taken apart into lanes, and held against what it was. Raises BankError."""
    own = own_laws(model)
    backbone = TransformersBackbone(model, adapters)
    check_laws(backbone, own, str(place))
    return backbone


def _sources(
    attributes: Mapping[str, str | Path | Place], references: Mapping[str, str | Path | Place]
) -> dict[str, Place]:
    """Every model but the reference, by what it is called among the branches."""
    given = {**attributes, **{_own_reference(name): source for name, source in references.items()}}
    return {name: Place.of(source) for name, source in given.items()}


def _own_reference(attribute: str) -> str:
    return f"{attribute} (reference)"


def _apart(sources: Mapping[str, Place]) -> tuple[dict[str, Path], dict[str, Place]]:
    """The adapters, as folders, and the whole models."""
    adapters: dict[str, Path] = {}
    wholes: dict[str, Place] = {}
    for name, place in sources.items():
        folder = adapter_folder(place)
        if folder is not None:
            adapters[name] = folder
        else:
            wholes[name] = place
    return adapters, wholes


def embeddings_of(model: Any) -> int:
    """How many tokens a model can read: a tokenizer may have more."""
    return int(model.get_input_embeddings().num_embeddings)


def ends_at(model: Place, skeleton: Any, tokenizer: Any, style: ChatStyle = PLAIN) -> Ends:
    """The end tokens that a model will have once it is loaded, of its files alone.

    Args:
        skeleton: of :func:`mpg.models.pretrained.skeleton_of`.
        style: what the chat template is told beside the messages.

    Raises:
        PlaceError: the Hub has no such model any more. BankError: a ``generation_config.json`` that can't be read.
    """
    from transformers import GenerationConfig

    place = Place(resolve(model.source)) if model.is_embedded else model
    file, found = None, None
    with suppress(HubUnreachable):  # what is not in the cache can't be loaded with the model either
        file = place.file("generation_config.json")
    if file is not None:
        try:
            found = GenerationConfig(eos_token_id=json.loads(file.read_text("utf-8")).get("eos_token_id"))
        except Exception as error:  # transformers raises anything about a file that is damaged
            raise BankError(f"{model}: its generation_config.json can't be read ({one_line(error)})") from error
    try:
        return ends_of(found, skeleton.config, tokenizer, embeddings_of(skeleton), style)
    except BankError as error:
        raise BankError(f"{model}: {error}") from error


def weight_bytes(model: Place, others: Sequence[Place], dtype: str) -> int:
    """What the weights of a model take in memory, and of those of ``others`` that are whole models; none is loaded.

    Raises:
        BankError: one can't be had or is not served.
    """
    wholes = [place for place in others if adapter_folder(place) is None]
    counts = (sum(each.numel() for each in skeleton_of(place).parameters()) for place in (model, *wholes))
    return sum(counts) * int(getattr(torch, dtype).itemsize)


def vocab_size_of(config: Any) -> int:
    """Numbers that a model's head gives, its padding included."""
    return int(config.get_text_config(decoder=True).vocab_size)


@dataclass(frozen=True)
class Needs:
    """What a model or adapter asks of the rows that use it, known without its weights.

    Attributes:
        invocation: tokens that its prompts must hold (aLoRA); mostly none.
        n_embeddings: tokens that it can read, and ``max_positions`` that it has: of a whole model; ``None``: the
            reference's.
    """

    invocation: tuple[int, ...] = ()
    n_embeddings: int | None = None
    max_positions: int | None = None


def check_source(skeleton: Any, tokenizer: Any, place: Place, model: Place) -> Needs:
    """Check that an adapter fits a model without weights, or that a whole model shares its vocabulary.

    An adapter that names another base than ``model`` is refused, or a line of the log, see
    :func:`mpg.models.adapter_files.check_base`.

    Raises:
        BankError: an adapter that was trained for another base, is refused by a field of its config, is damaged or
            lacks a file; a model with another tokenizer, or without safetensors.
    """
    folder = adapter_folder(place)
    if folder is not None:
        lora = read_lora(folder)
        check_fit(skeleton, lora)
        check_base(place, lora.config, model)  # after what decides it: a difference of names alone is but a word
        return Needs(lora.invocation)
    config = config_of(place)
    _check_same_vocabulary(tokenizer, place, vocab_size_of(config), vocab_size_of(skeleton.config))
    check_files(place)
    return Needs((), vocab_size_of(config), max_positions_of(config))


def _check_same_vocabulary(tokenizer: Any, place: Place, size: int, reference_size: int) -> None:
    """Check a whole model's tokenizer and, where its padding is not the reference's, that both hold every token."""
    tokens = tokenizer.get_vocab()
    if load_tokenizer(place).get_vocab() != tokens:
        raise BankError(
            f"model {place}: its tokenizer differs from the reference's; density ratios need one vocabulary"
        )
    needed = max(tokens.values(), default=-1) + 1
    if size != reference_size and min(size, reference_size) < needed:
        raise BankError(
            f"model {place}: its vocabulary has {size} entries and the reference's {reference_size}, fewer than the "
            f"{needed} of their tokenizer; resize the smaller one's embeddings, or use another model"
        )
