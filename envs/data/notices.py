"""What a person should know about a data set that is read all the same: one line, once in a process."""

import functools
import logging

_LOG = logging.getLogger(__name__)


@functools.cache
def report_once(line: str) -> None:
    """Logs a line as a warning, the first time in this process: a run opens its data set several times.

    Args:
        line: the notice.
    """
    _LOG.warning("%s", line)
