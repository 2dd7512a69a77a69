"""A finished adapter as a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

CARD_FILE = "card.json"


def save_adapter(policy: Any, adapter: Path, model_id: str) -> None:
    """The adapter alone, in bfloat16, as PEFT saves it; its base by id, not by a path of this machine."""
    from safetensors.torch import load_file, save_file

    policy.peft_config["default"].base_model_name_or_path = model_id
    policy.save_pretrained(adapter, save_embedding_layers=False)
    (adapter / "README.md").unlink(missing_ok=True)
    weights = {key: value.to(torch.bfloat16) for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    # It writes for its owner alone; whoever may read the folder may read the rest of it.
    (adapter / "adapter_model.safetensors").chmod((adapter / "adapter_config.json").stat().st_mode & 0o777)


def save_with_card(policy: Any, adapter: Path, model_id: str, card: Mapping[str, Any]) -> None:
    """The adapter, as :func:`save_adapter` has it, and its card, which is written last."""
    save_adapter(policy, adapter, model_id)
    (adapter / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def put_in_place(scratch: Path, output: Path) -> None:
    """Make ``scratch/adapter`` the folder ``output``, which is replaced whole, and remove ``scratch``."""
    if output.exists():
        output.rename(scratch / "replaced")
    (scratch / "adapter").rename(output)
    shutil.rmtree(scratch)
