"""What is asked for in a form to train on; apart, since a command line is read before anything heavy is imported."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

SYSTEMS = ("persona", "told", "none")
BETWEEN = ("cells", "personas")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for.

    Attributes:
        form: of :data:`pipeline.store.dataset.FORMS`.
        system: what the system message says: what the persona is like, what the reference was told, or nothing.
        between: whose texts are compared: those of a cell (prompt and persona), or of the personas on a prompt.
        min_margin: least difference of a pair's scores; 0: any.
        min_score: least score of a text that is taught; ``None``: unscored ones are, too (not in pairs).
        finished_only: whether texts that were cut off at the length limit are left out.
        drop_near_duplicates: whether texts that repeat an earlier one of their persona are.
        personas: whose texts are taught; none: everybody's.
    """

    form: str
    system: str = "persona"
    between: str = "cells"
    min_margin: float = 0.0
    min_score: float | None = None
    finished_only: bool = False
    drop_near_duplicates: bool = False
    personas: tuple[str, ...] = ()

    @property
    def reads_scores(self) -> bool:
        """Whether the data set's judgments matter."""
        return self.form == "preference" or self.min_score is not None

    @property
    def options(self) -> str:
        """The command line's options that ask for this."""
        words = ["--format", self.form, "--system", self.system]
        if self.form == "preference":
            words += ["--between", self.between, "--min-margin", f"{self.min_margin:g}"]
        words += [] if self.min_score is None else ["--min-score", f"{self.min_score:g}"]
        words += ["--finished-only"] * self.finished_only + ["--drop-near-duplicates"] * self.drop_near_duplicates
        words += ["--persona", *self.personas] if self.personas else []
        return shlex.join(words)
