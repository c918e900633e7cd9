"""Gradient checkpointing: activations are computed again in backward instead of being kept for it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class CheckpointedModule(nn.Module):
    """A network that runs a level at a time, and so can trade time for memory (Chen et al. 2016, arXiv 1604.06174).

    With ``recomputes`` all that is kept of a level is what goes into it; backward runs the level once more. The numbers
    stay the same: nothing in a network is left to chance, and its weights don't change between forward and backward.
    """

    activation_checkpointing = False

    def run(self, level: Callable[..., Tensor], *inputs: Any) -> Tensor:  # noqa: ANN401  whatever a level takes
        """What a level makes of its inputs, which it must not change in place."""
        if not self.activation_checkpointing:
            return level(*inputs)
        answer: Tensor = checkpoint(level, *inputs, use_reentrant=False, preserve_rng_state=False)
        return answer


def enable_activation_checkpointing(module: nn.Module) -> None:
    """Let a network, and whatever is in it, recompute its activations in backward."""
    for each in module.modules():
        if isinstance(each, CheckpointedModule):
            each.activation_checkpointing = True
