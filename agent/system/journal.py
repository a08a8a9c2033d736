"""The journal and the service manager, through python3-systemd: the only importer of systemd.

Without that library, or without systemd, messages go to stderr, and there is nobody to notify.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from agent.system.deployment_log import plain

try:
    import systemd.daemon as sd_daemon
    import systemd.journal as sd_journal
except ImportError:  # of a pip install without the extra [systemd]
    sd_daemon = sd_journal = None

_IDENTIFIER = "deploy-agent"
_PRIORITIES = (  # those of syslog(3)
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)


def is_journal(descriptor: int) -> bool:
    """Whether a descriptor leads to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def choose_output() -> logging.Handler:
    """Where log records go: to the journal where stderr leads there, else to stderr."""
    output: logging.Handler
    if sd_journal is not None and is_journal(sys.stderr.fileno()):
        output = JournalOutput()
        output.setFormatter(_PlainFormatter("%(message)s"))
    else:
        output = logging.StreamHandler(sys.stderr)
        output.setFormatter(_PlainFormatter("%(levelname)s %(message)s"))
    return output


class JournalOutput(logging.Handler):
    """Sends records to the journal, with the fields that are given as `extra={"fields": …}`.

    Names of fields: systemd.journal-fields(7), agent.model.messages. A message of several lines
    is one entry, which journalctl shows as such.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        given: Mapping[str, str] = getattr(record, "fields", {})
        try:
            named = {name: _encodable(value) for name, value in given.items()}
            sd_journal.send(
                _encodable(self.format(record)),
                PRIORITY=str(_priority(record.levelno)),
                SYSLOG_IDENTIFIER=_IDENTIFIER,
                CODE_FILE=record.pathname,
                CODE_LINE=record.lineno,
                CODE_FUNC=record.funcName,
                **named,
            )
        except (OSError, ValueError, TypeError):  # a lost line must not be the end of the agent
            self.handleError(record)


class _PlainFormatter(logging.Formatter):
    """Terminal escapes are for nobody's log: journalctl would show such a line as a "blob"."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(plain(line) for line in super().format(record).splitlines())


def notify(**variables: str) -> bool:
    """Tell the service manager (sd_notify(3)), such as READY="1"; False where none listens."""
    lines = (f"{name}={plain(value)}" for name, value in variables.items())
    if sd_daemon is None:
        return False
    try:
        return bool(sd_daemon.notify(_encodable("\n".join(lines))))
    except OSError:
        return False


def watchdog_seconds() -> float | None:
    """Within what time the service manager wants to hear of us (sd_watchdog_enabled(3))."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() and int(text) > 0 else None


def _priority(level: int) -> int:
    return next((number for lowest, number in _PRIORITIES if level >= lowest), 7)


def _encodable(text: str) -> str:
    """Names of files may hold bytes that are no text; the journal takes UTF-8."""
    return text.encode(errors="backslashreplace").decode()
