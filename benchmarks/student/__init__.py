"""Is a corpus worth training on? Students of corpora that were written in different ways, side by side.

A *student* is a small LoRA on the model that wrote, trained on what the judges score highest in one corpus; it is told
who it writes as in the corpus's own system messages. ``python -m benchmarks.student``, see benchmarks/README.md.
"""
