"""Runners as somebody else's module may name them, for the tests of which are refused."""

from apache_beam.runners.direct.direct_runner import DirectRunner
from apache_beam.runners.portability.prism_runner import PrismRunner

Alias = DirectRunner


class OwnPrism(PrismRunner):
    pass
