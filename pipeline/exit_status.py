"""The one table of exit statuses, for every command of `mpg`; docs/operations.md explains it to users."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1  # an error that nobody foresaw, or a check whose answer is no (`mpg verify`)
    BAD_INPUT = 2  # nothing was started
    BUDGET_SPENT = 3  # raise it: the same command goes on
    TOO_MANY_REJECTED = 4  # more rows than max_rejected_fraction allows could not be decoded
    UNSCORED = 5  # more judgments than max_unscored_fraction allows are missing, for a reason that no later call cures
    REFUSED = 6  # `mpg gate`: the data set is not to be published as it is
    TRY_AGAIN = 75  # a deadline, a killed worker, a full disk, a server without capacity: the same command goes on
    INTERRUPTED = 130  # by Ctrl-C or SIGTERM: the same command goes on
