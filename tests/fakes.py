"""Small real stand-ins: tabular models for the laws, tiny random Llamas for the machinery."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpg import FunctionModel, ModelBank


def tabular_model(seed: int, *, vocab_size: int = 3, eos_id: int = 0, scale: float = 1.0) -> FunctionModel:
    """A model whose logits depend on the last two tokens and the length, fixed by a seed."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(8, vocab_size, vocab_size, vocab_size, generator=generator, dtype=torch.float64) * scale

    def fn(tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        previous = tokens[:, -2] if length > 1 else torch.zeros_like(tokens[:, -1])
        return table[length % 8, previous % vocab_size, tokens[:, -1] % vocab_size]

    return FunctionModel(fn, vocab_size=vocab_size, eos_id=eos_id)


def tabular_bank(
    names: Sequence[str] = ("a", "b"), *, vocab_size: int = 3, own_reference: bool = False, scale: float = 1.0
) -> ModelBank:
    """Reference and attributes as tables; with ``own_reference`` the last attribute has its own rho.

    Their soup is the reference's logits plus the weighted differences plus cross terms (weights of a
    network act on its logits through products, too: a soup is no product of models).
    """

    def model(seed: int) -> FunctionModel:
        return tabular_model(seed, vocab_size=vocab_size, scale=scale)

    references = {names[-1]: model(99)} if own_reference else None
    attributes = {name: model(i) for i, name in enumerate(names, start=1)}
    reference = model(0)

    def soup(mix: Sequence[float]) -> FunctionModel:
        def fn(tokens: Tensor) -> Tensor:
            base = reference.fn(tokens)
            deltas = [c * (m.fn(tokens) - base) for c, m in zip(mix, attributes.values(), strict=True)]
            cross = sum((x * y for x, y in itertools.combinations(deltas, 2)), torch.zeros_like(base))
            return base + sum(deltas) + cross

        return FunctionModel(fn, vocab_size=vocab_size, eos_id=0)

    return ModelBank.from_functions(
        reference=reference, attributes=attributes, references=references, soup=None if own_reference else soup
    )


TINY_ALPHABET = ["<eos>", *"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!'"]


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """Where this process keeps one of each folder that :func:`_once` made; gone with the process."""
    return tempfile.TemporaryDirectory(prefix="tiny-")


def _once(folder: Path, key: object, make: Callable[[Path], None]) -> Path:
    """The folder as ``make`` makes it: made the first time that this process asks for ``key``, and copied after."""
    kept = Path(_kept().name) / hashlib.sha256(repr(key).encode()).hexdigest()
    if not kept.exists():
        with torch.random.fork_rng():  # or what is drawn next would depend on who came first
            make(kept)
    return Path(shutil.copytree(kept, folder, dirs_exist_ok=True))


_BASE = "<where the base is>"


def _replace(folder: Path, text: str, other: str) -> Path:
    """PEFT writes down where the base was, which may be another copy of it."""
    for path in (folder / "adapter_config.json", folder / "README.md"):
        path.write_text(path.read_text().replace(text, other))
    return folder


def tiny_llama(folder: Path, *, seed: int = 0, vocab_size: int = 64, n_layers: int = 2) -> Path:
    """A random Llama of a few layers with a byte-level tokenizer and a chat template, saved to a folder."""

    def make(here: Path) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        tiny_tokenizer(vocab_size).save_pretrained(here)
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            initializer_range=0.2,
        )
        LlamaForCausalLM(config).save_pretrained(here)

    torch.manual_seed(seed)
    return _once(folder, ("llama", seed, vocab_size, n_layers, torch.get_default_dtype()), make)


def tiny_tokenizer(vocab_size: int = 64) -> Any:
    """A token a character, and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate((TINY_ALPHABET + [f"<{i}>" for i in range(vocab_size)])[:vocab_size])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return fast


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def spelling_tokenizer(*, template: str = CHATML):
    """A byte-level tokenizer, which can spell out anything, with control tokens: three special, two that are not."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AddedToken, PreTrainedTokenizerFast

    vocab = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "[TOOL]", "word", "   ")])
    fast.chat_template = template
    return fast


def spelling_llama(folder: Path, *, template: str = CHATML, seed: int = 0) -> Path:
    """A tiny Llama with :func:`spelling_tokenizer`."""
    tokenizer = spelling_tokenizer(template=template)
    tiny_llama(folder, seed=seed, vocab_size=len(tokenizer))
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def tiny_adapter(
    base: Path,
    folder: Path,
    *,
    seed: int,
    rank: int = 2,
    scale: float = 0.3,
    targets: Any = "all-linear",
    **more: Any,
) -> Path:
    """A random LoRA adapter over a tiny Llama, saved in PEFT's own format."""

    def make(here: Path) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM", **more),
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        model.save_pretrained(here)
        _replace(here, str(base), _BASE)

    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in base.iterdir() if path.is_file()}
    _once(folder, ("adapter", sorted(files.items()), seed, rank, scale, targets, sorted(more.items())), make)
    return _replace(folder, _BASE, str(base))


def feed_every_branch(bank: ModelBank, ids: Tensor):
    """States of one pass of ``ids [1, time]`` under every branch, in the order of the branches."""
    session = bank.session(1, ids.shape[1])
    row = session.add_row(range(bank.layout.n_branches))
    entries = session.pick([(row, branch) for branch in range(bank.layout.n_branches)])
    return session.append(entries, ids.expand(len(entries), -1), torch.zeros_like(entries.rows))
