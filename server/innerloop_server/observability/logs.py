"""Structured logs on standard error: JSON lines, or colours on a terminal."""

import logging
import sys

import structlog


def configure_logging(level: str, form: str) -> None:
    """Set up structlog and the standard library's logging (which other packages write to) for this process.

    Args:
        level: least severity to write: debug, info, warning or error.
        form: json, console, or auto (console on a terminal).
    """
    severity = logging.getLevelNamesMapping()[level.upper()]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)
