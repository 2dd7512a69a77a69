"""Models that nothing was known against until they are loaded: a line with the field, for every command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mpg.models.embedded import EmbeddedModelError
from mpg.models.errors import AdapterError, BankError
from mpg.models.hub import one_line
from pipeline.decode.devices import Device, units_of
from pipeline.exit_status import ExitStatus
from pipeline.plan.cells import Sources
from pipeline.plan.errors import RunError

LoadBank = Callable[..., Any]


@contextmanager
def loading(model: str, adapters: str | None = None, *, place: object = "") -> Iterator[None]:
    """Name what can't be loaded.

    Args:
        model: what the model is called where it was given, ``model.id``.
        adapters: what adapters are called there; ``None``: as the model.
        place: of the model, where its name does not say it.

    Raises:
        RunError: in place of what loaders raise of a model or adapter that no later attempt would load either.
    """
    from safetensors import SafetensorError

    try:
        yield
    except AdapterError as error:
        raise RunError(f"{adapters or model}: {error}", ExitStatus.BAD_INPUT) from error
    except (BankError, EmbeddedModelError) as error:
        raise RunError(f"{model}: {error}", ExitStatus.BAD_INPUT) from error
    except SafetensorError as error:
        what = f"model {place}: " if str(place) else ""
        why = f"its weights can't be read ({one_line(error)}); fetch or save them again"
        raise RunError(f"{model}: {what}{why}", ExitStatus.BAD_INPUT) from error


def loaded(sources: Sources, load: LoadBank, **how: Any) -> Any:
    """The model bank of a job.

    Args:
        load: makes it, as :meth:`mpg.ModelBank.load`. how: its number format and device.

    Raises:
        RunError: a model or adapter can't be loaded; the line begins with its field.
    """

    def some(adapters: Mapping[str, Any], references: Mapping[str, Any]) -> Any:
        return load(
            sources.model, dict(adapters), dict(references), revision=sources.hub_revision, style=sources.style, **how
        )

    try:
        with loading("model.id"):
            return some(dict(sources.adapters), dict(sources.references))
    except RunError as error:
        found = str(error)
    # Out of the handler: what the failed attempt held is free again. Which one it was, they say one by one.
    with loading("model.id", place=sources.model):
        some({}, {})
    references = dict(sources.references)
    for name, place in sources.adapters:
        field = f"attributes[{sources.as_listed.index(name)}]" if name in sources.as_listed else f"attributes.{name}"
        with loading(f"{field}.adapter", place=place):
            some({name: place}, {})
        if name in references:
            with loading(f"{field}.reference", place=references[name]):
                some({name: place}, {name: references[name]})
    raise RunError(found, ExitStatus.BAD_INPUT)


def units_for(sources: Sources, devices: Sequence[Device]) -> list[tuple[Device, ...]]:
    """The groups of devices that a job's bank may lie on, see :func:`pipeline.decode.devices.units_of`.

    Raises:
        RunError: its weights fit on none, or a model can't be had.
    """
    if not sum(device.memory for device in devices):  # simulated ones
        return [(device,) for device in devices]
    from mpg.models.load import weight_bytes

    with loading("model.id", "attributes"):
        weights = weight_bytes(sources.model, [place for _, place in (*sources.adapters, *sources.references)],
                               sources.dtype)  # fmt: skip
    try:
        return units_of(devices, weights)
    except ValueError as error:
        raise RunError(str(error), ExitStatus.BAD_INPUT) from error
