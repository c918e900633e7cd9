"""Work of a tracker: a failure is a warning, and never ends the run."""

import logging
from collections.abc import Callable
from typing import TypeVar

from colordist.errors import UserError, one_line
from colordist.files.documents import DamagedFile

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Attempts:
    """Attempts at a tracker's work. The first failure is logged, and nothing is tried after it."""

    def __init__(self, name: str, later: str) -> None:
        """name: the tracker's. later: when the rest is sent, as the warning says."""
        self._name, self._later = name, later
        self.have_failed = False

    def __call__(self, work: Callable[[], object]) -> bool:
        """Run work. Returns whether it succeeded."""
        if self.have_failed:
            return False
        try:
            work()
        except Exception as error:
            log.warning("%s failed (%s): the run continues; %s", self._name, one_line(error, 200), self._later)
            self.have_failed = True
        return not self.have_failed


def open_or_warn(begin: Callable[[], _T], name: str, later: str) -> _T | None:
    """Open a tracker by ``begin``. Logs a failure and returns None. Raises UserError, except for a damaged file.

    name, later: as for ``Attempts``.
    """
    try:
        return begin()
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, DamagedFile):
            raise
        log.warning("%s failed (%s): the run continues without; %s", name, one_line(error, 200), later)
        return None
