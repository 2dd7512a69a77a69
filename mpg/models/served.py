"""Which models the engine serves, and by which pass: what was held against transformers' own ``forward``.

The table lies in ``model_types.json`` and is made by ``python -m tools.model_types``, which builds every decoder-only
type of the installed transformers tiny, turns the switches of its configuration, and compares laws. A type is run

- ``lean``: by our own pass over layers like Llama's, see :mod:`mpg.models.lean`;
- ``general``: by transformers' own modules over our cache and attention;
- ``joined``: likewise, where a model looks at the keys and values that a cache gives back;
- or refused, by name, before its weights are loaded.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from mpg.models.errors import BankError

FILE = Path(__file__).with_name("model_types.json")
# Types whose layers are exactly these: RMS norms, rotary positions, grouped queries, a gated MLP, nothing else.
LEAN = ("llama", "mistral", "qwen2")
DEVICES = ("cpu", "cuda")  # of torch: AMD's are "cuda", too


@cache
def table() -> dict[str, Any]:
    """``served``: type -> pass; ``refused``: type -> why; ``not_with``: type -> options; ``layers``: their kinds."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def has_windows(config: Any) -> bool:
    """Whether some layers of a type in ``LEAN`` see a window only."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds) != {"full_attention"}
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


def way_of(config: Any) -> str:
    """By which pass a model of this configuration is run: ``lean``, ``general`` or ``joined``."""
    way: str = table()["served"].get(config.model_type, "joined")
    return "general" if way == "lean" and has_windows(config) else way


def check_config(config: Any, model: str, *, untested: bool = False) -> None:
    """Whether a model of this configuration is served; no weights are needed.

    Args:
        config: of transformers.
        model: its name, for the message.
        untested: whether a type that the table does not know is let through.

    Raises:
        BankError: a type, an option or a kind of weights that is not.
    """
    kind, known, text = config.model_type, table(), config.get_text_config()
    where = f"model {model}: type {kind!r}"
    quantized = getattr(config, "quantization_config", getattr(text, "quantization_config", None))
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized.quant_method
        raise BankError(
            f"model {model}: its weights are quantized (quantization_config: {getattr(method, 'value', method)}), "
            f"which no test here has held; give the model in bfloat16, float16 or float32"
        )
    if kind in known["refused"]:
        raise BankError(f"{where} is not served: it {known['refused'][kind]}; docs/models.md lists the types that are")
    if kind not in known["served"] and not untested:
        import transformers

        raise BankError(
            f"{where} has not been held against transformers' own forward (made with {known['transformers']}, here is "
            f"{transformers.__version__}): its law may be wrong; try it in a clone (`python -m "
            f"tools.model_types {kind}`), or set model.untested: true if you know better"
        )
    strange = sorted(set(getattr(text, "layer_types", None) or ()) - set(known["layers"]))
    if strange and not untested:
        raise BankError(f"{where} has layers of kind {', '.join(strange)} (layer_types), which are not served")
    for options in known["not_with"].get(kind, ()):
        if all(getattr(text, name, None) == value for name, value in options.items()):
            raise BankError(f"{where} is not served with {', '.join(f'{n}: {v}' for n, v in options.items())}")


def check_device(device: str) -> None:
    """Raise BankError for a kind of device (``mps``, ...) that no test has held: its sums are nobody's promise."""
    if device not in DEVICES:
        raise BankError(f"device {device!r} is not served, only {' and '.join(DEVICES)} are; use cpu")
