"""Structured logs on standard error: JSON lines, or colours on a terminal."""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO

import structlog


class UnfailingStream:
    """A stream of log lines. A line that can't be written is lost: a full disk or a closed pipe ends nothing else.

    Args:
        stream: where lines go; None, as Python says of a closed standard error, loses all of them.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or lose it; returns its length."""
        # A stream that was closed raises ValueError, and so does a text that can't be encoded.
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether people read it on a terminal."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False


def open_standard_descriptors() -> None:
    """Put nothing in the place of standard descriptors that are closed.

    Otherwise the next files and sockets take their numbers, and libraries write their messages into those.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one


def configure_logging(level: str, form: str) -> None:
    """Set up structlog and the standard library's logging (which other packages write to) for this process.

    Args:
        level: least severity to write: debug, info, warning or error.
        form: json, console, or auto (console on a terminal).
    """
    severity = logging.getLevelNamesMapping()[level.upper()]
    stream = UnfailingStream(sys.stderr)
    console = form == "console" or (form == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # structlog's usual traceback shows the variables of all functions: credentials and callers' examples.
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)
