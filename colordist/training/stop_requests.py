"""Stop requests by signal, file or time limit."""

import os
import signal
import time
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_AGAIN = 2.0  # seconds: launchers forward a signal twice, so only a later one means "now"
_POLL_INTERVAL = 2.0  # seconds between two checks for the file, which may be on a slow disk


class StopRequests:
    """Requests to stop after the current step. The first reason stays."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._signalled: float | None = None
        self._begin = self._polled = time.monotonic()

    def listen(self) -> None:
        """Install the signal handlers. Must be called in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled is None:
            self._signalled = now
            self._reason = self._reason or signal.Signals(number).name
        elif now - self._signalled > _AGAIN:
            raise KeyboardInterrupt

    def reason(self, file: Path | None = None, max_minutes: float | None = None) -> str | None:
        """The reason to stop, or None.

        file: requests a stop if it exists. max_minutes: time limit, from the construction of this object.
        """
        now = time.monotonic()
        if self._reason is None and max_minutes is not None and now - self._begin > 60 * max_minutes:
            self._reason = f"train.max_minutes {max_minutes:g}"
        if self._reason is None and file is not None and now - self._polled > _POLL_INTERVAL:
            self._polled = now
            if os.path.exists(file):  # False for an I/O error, too
                self._reason = f"the file {file}"
        return self._reason
