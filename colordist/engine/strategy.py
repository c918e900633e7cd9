"""Interface of a distributed strategy: DistributedDataParallel, or DeepSpeed's ZeRO."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from colordist.engine.network import Network


class Strategy(Protocol):
    """Distributed training of one network: wrapper, loss scaler, counters."""

    network: Network
    bytes_sent: int | None
    """Gradient bytes that this process all-reduced in the latest phase; None where that isn't counted."""
    skipped_in_a_row: Tensor
    """Number of consecutive skipped updates up to now: a scalar on the device."""
    cuts_buckets_on_first_backward: bool
    """Whether the first backward pass determines the gradient buckets of all later ones: see ``Engine.rehearse``."""

    @property
    def trainable(self) -> Callable[..., Tensor]:
        """The wrapped network, for its own phase: gradients are all-reduced."""
        ...

    @property
    def frozen(self) -> Callable[..., Tensor]:
        """The network without its wrapper, for other phases, while its parameters are frozen."""
        ...

    def begin_phase(self, step: int) -> None:
        """Set the step's learning rate, clear the gradients and iterate spectral norms."""
        ...

    def gradient_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of a micro-batch's forward and backward pass. last: of the phase, so all-reduce the gradients."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients. loss: a scalar, this process's share of the mean over its images."""
        ...

    def update(self) -> dict[str, Tensor]:
        """Clip and step, unless the gradient norm is Inf or NaN: then skip the update.

        Returns scalars on the device, the same on all processes: ``gradient_norm``, before clipping; ``skipped``, 1 or
        0; and anything else to log.
        """
        ...

    def update_ema(self, images: int, batch: int) -> None:
        """Update the EMA weights, if there are any; arguments as for ``EMA.update``."""
        ...

    def replicated(self) -> dict[str, Iterable[Tensor]]:
        """Replicated tensors, by part: ``weights``, ``optimizer``, ``averaged``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, gathered: the same on every process, in one format for all strategies."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``. Raises what torch raises when it doesn't fit."""
        ...
