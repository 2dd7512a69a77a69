"""Chat templates with the features of well-known models' own, and small real tokenizers for them.

The templates are this project's: written anew, each with what its model's template is known for. A tokenizer is a small
byte-level one, plus the control tokens that the template writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.fakes import tiny_llama

_CHATML_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"


@dataclass(frozen=True)
class Kind:
    """A kind of template.

    Attributes:
        template: in jinja.
        tokens: control tokens that the tokenizer needs beside the shipped model's.
        closing: what closes an assistant's turn.
        eos, bos: the tokenizer's own, as such models' files name them.
        adds_bos: whether the tokenizer writes BOS before a text, as the template does, too.
        system: ``own``: has a role for it; ``refused``; ``dropped``; ``folded``: the template folds it itself.
        clock: whether it asks for today's date.
    """

    template: str
    tokens: tuple[str, ...]
    closing: str
    eos: str
    bos: str | None = None
    adds_bos: bool = False
    system: str = "own"
    clock: bool = False


KINDS: dict[str, Kind] = {
    # ChatML; thinking is on unless it is switched off, which writes an empty thought; older thoughts are left out.
    "qwen3": Kind(
        "{% for m in messages %}{% if m.role == 'assistant' and '</think>' in m.content %}"
        "<|im_start|>assistant\n{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n"
        "{% else %}" + _CHATML_TURN + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
        ("<think>", "</think>"),
        "<|im_end|>",
        "<|im_end|>",
    ),
    # BOS in the template and from the tokenizer; the date in every system header; another end than the tokenizer's.
    "llama3": Kind(
        "{{ bos_token }}{% if date_string is not defined %}{% if strftime_now is defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}"
        "{% endif %}{% if messages[0].role == 'system' %}{% set told = messages[0].content | trim %}"
        "{% set messages = messages[1:] %}{% else %}{% set told = '' %}{% endif %}"
        "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ told }}<|eot_id|>"
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "<|end_of_text|>",
        "<|begin_of_text|>",
        adds_bos=True,
        clock=True,
    ),
    # No system role: it raises; roles must take turns; the assistant is called the model.
    "gemma": Kind(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate user/assistant/user/...') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        "<eos>",
        "<bos>",
        adds_bos=True,
        system="refused",
    ),
    # BOS in the template; a system message is put into the first turn of the user by the template itself.
    "mistral": Kind(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set told = messages[0].content + '\n\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set told = '' %}{% set turns = messages %}{% endif %}"
        "{% for m in turns %}{% if m.role == 'user' %}[INST] {{ (told if loop.first else '') + m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        ("<s>", "</s>", "[INST]", "[/INST]"),
        "</s>",
        "</s>",
        "<s>",
        adds_bos=True,
        system="folded",
    ),
    # As older ones of its family: what is no turn of user or assistant is passed over without a word.
    "mistral-silent": Kind(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        ("<s>", "</s>", "[INST]", "[/INST]"),
        "</s>",
        "</s>",
        "<s>",
        adds_bos=True,
        system="dropped",
    ),
    # Turns end with a token of their own, and a chat that is whole with the tokenizer's.
    "phi3": Kind(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "</s>"),
        "<|end|>",
        "<|endoftext|>",
    ),
    # The date and whether it thinks stand in a header of metadata, which is always there.
    "smollm3": Kind(
        "{% set thinks = enable_thinking is not defined or enable_thinking %}<|im_start|>system\n## Metadata\n\n"
        "Today Date: {{ strftime_now('%d %B %Y') }}\nReasoning Mode: {{ '/think' if thinks else '/no_think' }}\n\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}"
        "<|im_end|>\n{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and not thinks %}<think>\n\n</think>\n{% endif %}"
        "{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% if not thinks %}<think>\n\n</think>\n{% endif %}"
        "{% endif %}",
        ("<think>", "</think>"),
        "<|im_end|>",
        "<|im_end|>",
        clock=True,
    ),
    # A system message of its own, with the date, where the chat has none.
    "granite": Kind(
        "{% if messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>Today's Date: "
        "{{ strftime_now('%B %d, %Y') }}.\nYou are Granite.<|end_of_text|>\n{% endif %}"
        "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        "<|end_of_text|>",
        "<|end_of_text|>",
        clock=True,
    ),
}


@lru_cache(maxsize=1)
def _alphabet() -> str:
    """A byte-level vocabulary as the shipped model's, of some 600 tokens, in tokenizers' own JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*(kind.template for kind in KINDS.values()), __doc__ or ""], trainer)
    return str(tokenizer.to_str())


def tokenizer_of(kind: str, **changes: Any) -> Any:
    """A fast tokenizer with a template of this kind, new each time.

    Args:
        changes: of the :class:`Kind`'s fields.
    """
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    facts = replace(KINDS[kind], **changes)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_alphabet()))
    tokenizer.add_tokens(list(facts.tokens), special_tokens=True)
    tokenizer.eos_token = facts.eos
    tokenizer.pad_token = None
    tokenizer.bos_token = facts.bos
    if facts.adds_bos:
        assert facts.bos is not None
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{facts.bos} $A", special_tokens=[(facts.bos, tokenizer.convert_tokens_to_ids(facts.bos))]
        )
    tokenizer.chat_template = facts.template
    return tokenizer


def save_tokenizer(kind: str, folder: Any, **changes: Any) -> Any:
    """The tokenizer, saved to a model's folder as well."""
    tokenizer = tokenizer_of(kind, **changes)
    tokenizer.save_pretrained(folder)
    return tokenizer


def templated_llama(folder: Path, kind: str, *, seed: int = 0, eos_ids: Any = None, **changes: Any) -> Path:
    """A tiny random Llama with a tokenizer of this kind, saved to a folder.

    Args:
        eos_ids: of its ``generation_config.json``; ``None``: the tokenizer's own, which may not close a turn.
        changes: ``n_embeddings`` (the tokenizer may have more tokens); else of the :class:`Kind`'s fields.
    """
    n_embeddings = changes.pop("n_embeddings", None)
    tokenizer = tokenizer_of(kind, **changes)
    tiny_llama(folder, seed=seed, vocab_size=n_embeddings or len(tokenizer))
    tokenizer.save_pretrained(folder)
    own = tokenizer.eos_token_id if eos_ids is None else eos_ids
    for name in ("config.json", "generation_config.json"):
        values = json.loads((folder / name).read_text())
        values |= {"eos_token_id": own, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": None}
        (folder / name).write_text(json.dumps(values))
    return folder
