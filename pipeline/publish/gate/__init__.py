"""Whether a data set may follow the last one that was published: what is measured of both, and by which rules."""
