"""A worker's log: one JSON object a line, of ASCII characters alone.

TorchServe reads the standard output of its workers line by line, takes a line that begins with ``[METRICS]`` for a
measurement, and ends lines at U+0085, U+2028 and U+2029 as well. So whatever a message holds, none of it may begin a
line: it stands in a JSON string, where every character but ASCII's printable ones is escaped.
"""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

METRICS_LOGGER = "ts.metrics"
"""Logger by which TorchServe's own code writes measurements to its front end, in a form of its own."""

REQUESTS = logging.getLogger("imagexplain.request")
"""Logger of the line that each request has; monitoring/log4j2.xml knows its lines by this name."""


class JsonLines(JsonFormatter):
    """A formatter of records as JSON, each on one line; measurements stay as they are."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
            timestamp="time",
            json_ensure_ascii=True,
        )

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without its end."""
        if record.name.startswith(METRICS_LOGGER):
            return record.getMessage()
        return super().format(record)


def write_json() -> None:
    """Write what this process logs to its standard output as JSON from here on, Python's warnings among it.

    What TorchServe logs while a model is loaded stays text, for it looks for some of it.
    """
    logging.captureWarnings(True)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setFormatter(JsonLines())
