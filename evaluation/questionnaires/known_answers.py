"""Questions with known answers, the project's own: what a model still knows while it writes as somebody.

Easy ones, that a small model answers when it is asked plainly, each with the words that tell a right answer. A text is
right where any of them stands in it as a word of its own, whatever else it says: a persona may chat around its answer.
"""

from __future__ import annotations

import re

# Question, and answers of which any is right; in small letters.
QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("What is the capital of France?", ("paris",)),
    ("What is the capital of Japan?", ("tokyo",)),
    ("What is the capital of Italy?", ("rome",)),
    ("What is the capital of Germany?", ("berlin",)),
    ("What is the capital of Spain?", ("madrid",)),
    ("What is the capital of Egypt?", ("cairo",)),
    ("On which continent is Kenya?", ("africa",)),
    ("On which continent is Brazil?", ("south america",)),
    ("Which planet do we live on?", ("earth",)),
    ("Which planet is known as the red planet?", ("mars",)),
    ("Which is the largest planet of the solar system?", ("jupiter",)),
    ("Around which star does the earth move?", ("sun",)),
    ("How many days are in a week?", ("seven", "7")),
    ("How many months are in a year?", ("twelve", "12")),
    ("How many minutes are in an hour?", ("sixty", "60")),
    ("How many legs does a spider have?", ("eight", "8")),
    ("How many sides does a triangle have?", ("three", "3")),
    ("What is two plus two?", ("four", "4")),
    ("What is ten minus three?", ("seven", "7")),
    ("What is five times two?", ("ten", "10")),
    ("What colour is the sky on a clear day?", ("blue",)),
    ("What colour is grass?", ("green",)),
    ("What colour do you get when you mix blue and yellow?", ("green",)),
    ("What is frozen water called?", ("ice",)),
    ("Which gas do people need to breathe?", ("oxygen",)),
    ("Which gas do plants take from the air to make sugar?", ("carbon dioxide", "co2")),
    ("What is the chemical formula of water?", ("h2o",)),
    ("Which organ pumps blood through the body?", ("heart",)),
    ("With which organ do people see?", ("eye", "eyes")),
    ("Which animal says meow?", ("cat", "cats")),
    ("Which insect makes honey?", ("bee", "bees", "honeybee", "honeybees")),
    ("What do cows drink when they are thirsty?", ("water",)),
    ("Who wrote Romeo and Juliet?", ("shakespeare",)),
    ("Who was the first president of the United States?", ("washington",)),
    ("Which language is spoken in Portugal?", ("portuguese",)),
    ("Which language do most people in Brazil speak?", ("portuguese",)),
    ("What is the opposite of hot?", ("cold",)),
    ("What is the opposite of up?", ("down",)),
    ("Which season comes after winter?", ("spring",)),
    ("Which day comes after Monday?", ("tuesday",)),
)


def is_right(question: str, text: str) -> bool:
    """Whether a text answers one of :data:`QUESTIONS` rightly. Raises KeyError: it is none of them."""
    answers = dict(QUESTIONS)[question]
    return any(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text.lower()) is not None for answer in answers)
