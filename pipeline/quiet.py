"""Keep libraries from talking over the report: their bars and notices, never their errors."""

from __future__ import annotations

import logging
import os
import warnings

from pipeline.store.errors import line_in


def quiet_libraries() -> None:
    """Turn off progress bars and notices of transformers, datasets and the Hub. Call before importing them.

    Warnings that mean something for the rows (this project's own loggers) are left alone.
    """
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_NO_ADVISORY_WARNINGS", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in ("apache_beam", "transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_says_something)
    warnings.filterwarnings("ignore", category=FutureWarning)


def _says_something(record: logging.LogRecord) -> bool:
    """Not that Beam's BigQuery client is missing (nothing uses one), nor an error that comes as one line anyhow."""
    text = record.getMessage()
    return not text.startswith("apitools not found") and line_in(text) is None
