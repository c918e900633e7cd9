"""Being asked to stop: by a signal, by a file, by the clock."""

import os
import signal
import time
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_AGAIN = 2.0  # seconds: launchers pass one signal on twice, so only a later one means "now"
_LOOK = 2.0  # seconds between two looks for the file, which may lie on a slow disk


class StopRequests:
    """What asks a process to finish its step and stop. The reason is told once and stays."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._signalled: float | None = None
        self._begin = self._looked = time.monotonic()

    def listen(self) -> None:
        """Take signals as requests from now on. Must be called in the main thread."""
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
        """Why to stop; None as long as there is no reason to.

        file: whose existence is a request. max_minutes: time since this object was made, which is one, too.
        """
        now = time.monotonic()
        if self._reason is None and max_minutes is not None and now - self._begin > 60 * max_minutes:
            self._reason = f"train.max_minutes {max_minutes:g}"
        if self._reason is None and file is not None and now - self._looked > _LOOK:
            self._looked = now
            if os.path.exists(file):  # False also where the disk doesn't answer
                self._reason = f"the file {file}"
        return self._reason
