"""The terminal: everything that colordist prints or logs goes through here.

Names and texts of a stranger's files reach it, and mustn't control it: unprintable characters become question
marks. Secrets are left out.
"""

import logging
import sys
import traceback
from types import TracebackType

from colordist.errors import printable
from colordist.secrets import redacted


def say(*texts: object, error: bool = False) -> None:
    """Print texts, each of one or more lines. error: to stderr."""
    print(*(_clean(str(each)) for each in texts), sep="\n", file=sys.stderr if error else sys.stdout, flush=True)


def log_handler() -> logging.Handler:
    """A handler that prints to stderr as ``say`` does."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    return handler


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an unexpected error, as ``say`` does: a ``sys.excepthook``."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip(), error=True)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The record's text without unprintable characters."""
        return _clean(super().format(record))


def _clean(text: str) -> str:
    return "\n".join(map(printable, redacted(text).expandtabs().split("\n")))
