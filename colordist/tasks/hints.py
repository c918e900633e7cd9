"""Colour hints as an option of tasks: points whose colours the generator is given.

Zhang et al. 2017 (arXiv 1705.02999).
"""

from dataclasses import dataclass

from colordist.config import TaskSettings


@dataclass(frozen=True, kw_only=True)
class HintSettings(TaskSettings):
    """Settings of a task that may take colour hints."""

    hints: bool = False
    """Colour hints: give the generator the colours of random points of half of the training images, so that it follows
    those of a user (arXiv 1705.02999)."""

    @property
    def takes_hints(self) -> bool:
        """Whether the generator takes colour hints besides grey."""
        return self.hints
