"""Verbs as users call them, in this process."""

import signal
import sys

import pytest

from colordist import cli
from colordist.training.stop_requests import SIGNALS


def call_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``colordist VERB ...``. Returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["colordist", *arguments])
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        for number, handler in handlers.items():  # `train` takes signals as requests, and whatever is forked would, too
            signal.signal(number, handler)
    return 0
