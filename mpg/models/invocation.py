"""Adapters that are on from a place in the prompt only (aLoRA, Greenewald et al. 2025, arXiv 2504.12397).

Before the last occurrence of its *invocation tokens* such a branch is the model it was trained over. The place is
looked for in the prompt, never in the response: what a branch writes does not move it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence


def activation(attribute: str | None, prompt: Sequence[int] | None, invocation: Sequence[int]) -> int:
    """Where an adapter's invocation tokens last begin in a prompt: it counts from there on (aLoRA, Greenewald 2025).

    Raises:
        ValueError: naming the attribute: they are not there, or no prompt is given.
    """
    wanted, n = list(invocation), len(invocation)
    if prompt is None:
        raise ValueError(f"prompts.{attribute}: none given, and its adapter is on from a place in it; give prompt_of")
    found = next((i for i in range(len(prompt) - n, -1, -1) if list(prompt[i : i + n]) == wanted), None)
    if found is None:
        raise ValueError(
            f"prompts.{attribute}: its adapter is on from its invocation tokens (alora_invocation_tokens: {wanted}), "
            "which this prompt lacks; add them to the prompt or to a system message"
        )
    return found


def check_prompts(
    invocations: Mapping[str, Sequence[Sequence[int]]],
    names: Iterable[str],
    prompt_of: Callable[[str | None], Sequence[int]],
) -> None:
    """Raise ValueError where a prompt lacks the invocation tokens of an attribute that is used.

    Args:
        invocations: attribute -> those of its models.
        names: the attributes used; ``prompt_of``: what their models read.
    """
    for name in names:
        for invocation in invocations.get(name, ()):
            activation(name, prompt_of(name), invocation)


def invocations_of(backbone: object) -> Sequence[tuple[int, ...]]:
    """Each adapter's, see :attr:`mpg.models.adapter_files.Lora.invocation`; none of a backbone that knows none."""
    found: Iterable[tuple[int, ...]] = getattr(backbone, "invocations", ())
    return tuple(found)
