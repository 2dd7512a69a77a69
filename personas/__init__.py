"""What a text should sound like, and to which prompt: attributes, personas, grids, prompts, cells.

Nothing here knows of models: no torch, no transformers, no Beam.

>>> from personas import simplex_lattice
>>> [persona.name for persona in simplex_lattice(["E", "N"], steps=2)]
['E1.00', 'E0.50+N0.50', 'N1.00']
"""

from __future__ import annotations

from personas.attributes import KNOWN, MBTI, REFERENCE, ROLE_PLAY, Attribute, Persona, Weights, mbti_type
from personas.chats import Message
from personas.profiles import Profile
from personas.prompts import Prompt, PromptError, load_prompts_dataset, load_prompts_jsonl
from personas.records import Cell, Grid, row_id, row_seed
from personas.weights import (
    at_strengths,
    control,
    cover,
    dirichlet,
    explicit,
    one_hot,
    simplex_lattice,
    simplex_size,
)

__all__ = [
    "KNOWN",
    "MBTI",
    "REFERENCE",
    "ROLE_PLAY",
    "Attribute",
    "Cell",
    "Grid",
    "Message",
    "Persona",
    "Profile",
    "Prompt",
    "PromptError",
    "Weights",
    "at_strengths",
    "control",
    "cover",
    "dirichlet",
    "explicit",
    "load_prompts_dataset",
    "load_prompts_jsonl",
    "mbti_type",
    "one_hot",
    "row_id",
    "row_seed",
    "simplex_lattice",
    "simplex_size",
]
