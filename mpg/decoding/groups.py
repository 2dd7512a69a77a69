"""Which requests are decoded together: by what their settings have in common."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from mpg.models.bank import ModelBank
from mpg.request import Request
from mpg.settings import OF_A_ROW, DecoderSettings, in_common, settings_of_each


def groups_of(bank: ModelBank, requests: Sequence[Request], settings: Sequence[DecoderSettings]) -> list[list[int]]:
    """Indices of the requests that are decoded together, by their settings; in the order of their first ones.

    Raises:
        ValueError: a request that can't be decoded, named by its index.
    """
    groups: dict[Hashable, list[int]] = {}
    known: dict[int, Hashable] = {}  # by object: mostly all requests have one
    for index, (request, own) in enumerate(zip(requests, settings, strict=True)):
        try:
            bank.check(request, own)
        except ValueError as error:
            raise ValueError(f"request {index}: {error}") from None
        if id(own) not in known:
            known[id(own)] = _in_common(bank, own)
        groups.setdefault(known[id(own)], []).append(index)
    return list(groups.values())


def first_of(bank: ModelBank, settings: Sequence[DecoderSettings]) -> DecoderSettings:
    """The first of settings that go together.

    Raises:
        ValueError: there is none, or one does not go together with it.
    """
    each = settings_of_each(settings, len(settings))
    if not each:
        raise ValueError("settings: none given; give one for all, or one for each request")
    for index, own in enumerate(each):
        if own is not each[0] and _in_common(bank, own) != _in_common(bank, each[0]):
            raise ValueError(
                f"settings[{index}]: differs from settings[0] in more than {', '.join(OF_A_ROW)}, as no row of a batch "
                "may; give such settings to mpg.decode, which takes any"
            )
    return each[0]


def _in_common(bank: ModelBank, settings: DecoderSettings) -> Hashable:
    """See :func:`mpg.settings.in_common`; where a text is read by how long it may become, that length as well."""
    by_length = any(positions is not None for positions in bank.branch_positions)
    return in_common(settings), settings.max_new_tokens if by_length else 0
