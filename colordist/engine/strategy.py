"""What an engine does with one network: call it, run its backward pass, update it. One class for each engine."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from colordist.engine.network import Network


class Strategy(Protocol):
    """A network on several processes, each of which sees its share of a step's images."""

    network: Network
    bytes_sent: int | None
    """Gradient bytes that this process gave to the others in the latest turn; None where that isn't counted."""

    @property
    def trainable(self) -> Callable[..., Tensor]:
        """The network as it is called in its own turn: its gradients will travel."""
        ...

    @property
    def frozen(self) -> Callable[..., Tensor]:
        """The network as it is called in another's turn: nothing of it learns, nothing of it travels."""
        ...

    def begin_phase(self, step: int) -> None:
        """Get ready to learn in a step."""
        ...

    def gradient_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """In here a micro-batch goes forward and backward. With the turn's last one, the gradients are averaged."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to the turn's. loss: a scalar, this process's share of the mean over its images."""
        ...

    def update(self) -> dict[str, Tensor]:
        """Clip and step, unless the gradient is not finite: then change nothing.

        Returns scalars on the device: ``gradient_norm``, before clipping; ``skipped``, 1 where nothing was changed,
        else 0; and what else is worth a line in the log. They are the same on all processes.
        """
        ...

    def update_ema(self, images: int, batch: int) -> None:
        """Let the averaged copy, if there is one, follow; arguments as for ``EMA.update``."""
        ...

    def replicated(self) -> dict[str, Iterable[Tensor]]:
        """What each process has a whole copy of: ``weights``, ``optimizer`` states, ``averaged`` weights, if so."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, whole: the same on every process, and in the same form for all engines."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``. Raises what torch raises when it doesn't fit."""
        ...
