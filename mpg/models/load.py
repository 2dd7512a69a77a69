"""Models and adapters from folders and the Hub to backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mpg.laws.layout import Layout
from mpg.models.adapter_files import check_adapters
from mpg.models.backbone import Backbone, TransformersBackbone
from mpg.models.embedded import resolve
from mpg.models.errors import BankError

# Of an adapter on the Hub, what is fetched: its weights, what it is like, and its own judge.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "card.json", "judge.json", "judge.safetensors")


@dataclass(frozen=True)
class Loaded:
    """What a :class:`mpg.ModelBank` is made of."""

    backbones: Sequence[Backbone]
    layout: Layout
    vocab_size: int
    eos_ids: frozenset[int]
    max_positions: int | None
    tokenizer: Any


def load_models(
    model: str,
    attributes: Mapping[str, str | Path],
    references: Mapping[str, str | Path],
    *,
    revision: str | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Loaded:
    """See :meth:`mpg.ModelBank.load`; ``references`` are of some of the attributes."""
    from transformers import AutoTokenizer

    path = resolve(model)
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    base = _load_model(path, revision, dtype, device)
    adapters, wholes = _apart(_sources(attributes, references))
    backbones: list[Backbone] = [TransformersBackbone(base, list(adapters.values()))]
    for source in wholes.values():
        _check_same_tokenizer(tokenizer, source)
        backbones.append(TransformersBackbone(_load_model(source, None, dtype, device)))
    branch = {name: i for i, name in enumerate([*adapters, *wholes], start=1)}
    return Loaded(
        backbones=backbones,
        layout=Layout(
            attributes=tuple(attributes),
            policy=tuple(branch[name] for name in attributes),
            reference=tuple(branch.get(_own_reference(name), 0) for name in attributes),
        ),
        vocab_size=base.config.vocab_size,
        eos_ids=_eos_ids(base),
        max_positions=getattr(base.config, "max_position_embeddings", None),
        tokenizer=tokenizer,
    )


def _sources(attributes: Mapping[str, str | Path], references: Mapping[str, str | Path]) -> dict[str, str]:
    """Every model but the reference, by what it is called among the branches."""
    given = {**attributes, **{_own_reference(name): source for name, source in references.items()}}
    return {name: resolve(str(source)) for name, source in given.items()}


def _own_reference(attribute: str) -> str:
    return f"{attribute} (reference)"


def _apart(sources: Mapping[str, str]) -> tuple[dict[str, Path], dict[str, str]]:
    """The adapters, as folders, and the whole models."""
    adapters: dict[str, Path] = {}
    wholes: dict[str, str] = {}
    for name, source in sources.items():
        folder = _adapter_folder(source)
        if folder is not None:
            adapters[name] = folder
        else:
            wholes[name] = source
    return adapters, wholes


def _eos_ids(model: Any) -> frozenset[int]:
    eos = model.generation_config.eos_token_id if model.generation_config else None
    eos = model.config.eos_token_id if eos is None else eos
    return frozenset([eos] if isinstance(eos, int) else eos or [])


def check_sources(model: str, adapters: Sequence[str], *, revision: str | None = None) -> None:
    """Check that adapters fit a model from its configuration alone: no weights of it are loaded.

    Args:
        model: id or folder of the reference.
        adapters: folders or Hub ids; whole models among them are passed over.

    Raises:
        BankError: an adapter that was trained for another base, or is not plain LoRA.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(resolve(model), revision=revision, trust_remote_code=False)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    folders = [_adapter_folder(resolve(source)) for source in adapters]
    check_adapters(skeleton, [folder for folder in folders if folder is not None])


def _adapter_folder(source: str) -> Path | None:
    """The folder of a PEFT adapter, fetched from the Hub if need be; ``None`` for a whole model."""
    folder = Path(source)
    if folder.is_dir():
        return folder if (folder / "adapter_config.json").is_file() else None
    from huggingface_hub import file_exists, snapshot_download

    if not file_exists(source, "adapter_config.json"):
        return None
    return Path(snapshot_download(source, allow_patterns=list(ADAPTER_FILES)))


def _load_model(path: str, revision: str | None, dtype: torch.dtype, device: torch.device | str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
        )
    except OSError as error:
        raise BankError(f"model {path}: {str(error).splitlines()[0]} (safetensors only)") from error
    return model.to(device).eval()


def _check_same_tokenizer(tokenizer: Any, source: str) -> None:
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if other.get_vocab() != tokenizer.get_vocab():
        raise BankError(
            f"model {source}: its tokenizer differs from the reference's; density ratios need one vocabulary"
        )
