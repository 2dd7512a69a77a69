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
from mpg.models.adapter_files import check_adapters
from mpg.models.backbone import Backbone, TransformersBackbone
from mpg.models.embedded import resolve
from mpg.models.ends import Ends, ends_of
from mpg.models.errors import BankError
from mpg.models.hub import HubUnreachable, Place, PlaceError, adapter_folder, hub_errors, one_line


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
) -> Loaded:
    """See :meth:`mpg.ModelBank.load`; ``references`` are of some of the attributes."""
    reference = Place.of(model) if revision is None or isinstance(model, Place) else Place(str(model), revision)
    tokenizer = load_tokenizer(reference)
    base = _load_model(reference, dtype, device)
    n_embeddings = embeddings_of(base)
    adapters, wholes = _apart(_sources(attributes, references))
    backbones: list[Backbone] = [TransformersBackbone(base, list(adapters.values()))]
    for source in wholes.values():
        _check_same_tokenizer(tokenizer, source)
        whole = _load_model(source, dtype, device)
        n_embeddings = min(n_embeddings, embeddings_of(whole))
        backbones.append(TransformersBackbone(whole))
    branch = {name: i for i, name in enumerate([*adapters, *wholes], start=1)}
    return Loaded(
        backbones=backbones,
        layout=Layout(
            attributes=tuple(attributes),
            policy=tuple(branch[name] for name in attributes),
            reference=tuple(branch.get(_own_reference(name), 0) for name in attributes),
        ),
        vocab_size=base.config.vocab_size,
        n_embeddings=n_embeddings,
        eos_ids=ends_of(base.generation_config, base.config, tokenizer, embeddings_of(base)).ids,
        max_positions=getattr(base.config, "max_position_embeddings", None),
        tokenizer=tokenizer,
    )


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


def ends_at(model: Place, skeleton: Any, tokenizer: Any) -> Ends:
    """The end tokens that a model will have once it is loaded, of its files alone.

    Args:
        skeleton: of :func:`skeleton_of`.

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
            found = GenerationConfig.from_dict(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BankError(f"{model}: its generation_config.json can't be read ({one_line(error)})") from error
    return ends_of(found, skeleton.config, tokenizer, embeddings_of(skeleton))


def skeleton_of(model: Place) -> Any:
    """The reference without weights, from its configuration alone, on ``meta``. Raises BankError: it can't be had."""
    from transformers import AutoConfig, AutoModelForCausalLM

    _must_hold_weights(model)
    path, where = _arguments(model)
    with hub_errors(model):
        try:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False, **where)
        except ValueError as error:
            raise BankError(f"{model}: its config.json is of no model known here ({one_line(error)})") from error
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def check_source(skeleton: Any, tokenizer: Any, place: Place) -> None:
    """Check that an adapter fits a model without weights, or that a whole model shares its vocabulary.

    Raises:
        BankError: an adapter that was trained for another base, is not plain LoRA, or lacks a file; a model with
            another tokenizer, or without safetensors.
    """
    folder = adapter_folder(place)
    if folder is not None:
        check_adapters(skeleton, [folder])
        return
    _check_same_tokenizer(tokenizer, place)
    _must_hold_weights(place)


def _must_hold_weights(place: Place) -> None:
    if place.folder is not None and not any(place.folder.glob("*.safetensors")):
        raise BankError(f"model {place}: no *.safetensors there; give a model saved as safetensors")


def load_tokenizer(model: Place) -> Any:
    """The tokenizer of a model. Raises BankError: it can't be had."""
    from transformers import AutoTokenizer

    path, where = _arguments(model)
    with hub_errors(model):
        try:
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **where)
        except (ValueError, KeyError, TypeError) as error:
            raise BankError(f"{model}: its tokenizer can't be loaded ({one_line(error)})") from error


def _arguments(place: Place) -> tuple[str, dict[str, Any]]:
    """What ``from_pretrained`` takes: a path or id, and where in it."""
    if place.is_embedded:
        return resolve(place.source), {}
    if place.folder is not None:
        return str(place.folder), {}
    found: dict[str, Any] = {"revision": place.revision, "subfolder": place.subfolder}
    found |= {"local_files_only": True} if place.cached_only else {}
    return place.source, {name: value for name, value in found.items() if value is not None}


def _load_model(place: Place, dtype: torch.dtype, device: torch.device | str) -> Any:
    from transformers import AutoModelForCausalLM

    path, where = _arguments(place)
    try:
        with hub_errors(place):
            model = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="sdpa",
                **where,
            )
    except PlaceError as error:
        raise type(error)(f"model {error} (safetensors only)") from error
    return model.to(device).eval()


def _check_same_tokenizer(tokenizer: Any, place: Place) -> None:
    if load_tokenizer(place).get_vocab() != tokenizer.get_vocab():
        raise BankError(
            f"model {place}: its tokenizer differs from the reference's; density ratios need one vocabulary"
        )
