"""Methods x tasks x strengths in one run, on the same prompts and seeds, measured and tabled."""
