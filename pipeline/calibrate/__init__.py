"""Strengths by attribute from a pilot: equal lifts within a budget of perplexity, and whether scores follow weights."""
