"""Pictures of a data set's plots, for its card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.publish.report.colours import LIGHT
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.parts import Figure, Shown
from pipeline.publish.report.read import read_data_set
from pipeline.store.files import make_folder, write_bytes

# Plots side by side, and their width in pixels, of which the pictures have half as many again.
_COLUMNS, _WIDTH, _SCALE = 2, 320, 1.5
CONTROL, LEAKAGE = "adherence.png", "leakage.png"


def is_installed() -> bool:
    """Whether plots can be made: the extra ``report``."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("altair", "vl_convert"))


def write_figures(data_set: Path, out: Path) -> list[tuple[str, str]]:
    """Pictures of adherence against weight, and of leakage.

    Args:
        data_set: its folder. out: folder of the pictures, made if need be.

    Returns:
        file's name and what the picture shows, in words; none where the extra ``report`` is not installed, nothing is
        judged, or no attribute has a weight. The same data set gives the same bytes.

    Raises:
        ReportError: no data set. OSError: a folder that can't be written.
    """
    if not is_installed():
        return []
    from pipeline.publish.report import plots
    from pipeline.publish.report.charts import Names

    measures = Measures(read_data_set(data_set))
    names, shown = Names((measures.of.name,)), Shown((*measures.of.judged, *measures.of.personas))
    written = []
    for file, figures in (
        (CONTROL, plots.control([measures], names, shown)),
        (LEAKAGE, plots.leakage([measures], names, shown)),
    ):
        if figures:
            make_folder(out)
            write_bytes(png(figures), out / file)
            written.append((file, " ".join(each.label for each in figures)))
    return written


def _part(spec: Mapping[str, Any], title: str) -> dict[str, Any]:
    part = {**spec, "width": _WIDTH if spec["width"] == "container" else spec["width"]}
    return part | {"title": title} if title else part


def png(figures: Sequence[Figure]) -> bytes:
    """A picture of plots side by side, each under its caption; the extra ``report`` has to be installed."""
    import vl_convert

    from pipeline.publish.report.charts import CONFIG, with_colours

    parts = [_part(each.spec, each.caption) for each in figures]
    columns = min(_COLUMNS, len(parts)) if len(parts) < 9 else math.ceil(math.sqrt(len(parts)))
    spec: dict[str, Any] = {"concat": parts, "columns": columns, "spacing": 24} if len(parts) > 1 else parts[0]
    # A font that vl-convert brings: the picture is the same on every machine.
    config = {
        **CONFIG,
        "background": LIGHT["paper"],
        "font": "Liberation Sans",
        "title": {"color": LIGHT["ink"], "fontSize": 13},
    }
    found: bytes = vl_convert.vegalite_to_png(
        with_colours(spec, LIGHT), scale=_SCALE, config=with_colours(config, LIGHT), allowed_base_urls=[]
    )
    return found
