"""Activation checkpointing: activations are recomputed in backward instead of being stored."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class CheckpointedModule(nn.Module):
    """A network that runs level by level, and can checkpoint each (Chen et al. 2016, arXiv 1604.06174).

    With ``activation_checkpointing`` only the inputs of a level are stored; backward runs its forward pass again. The
    results are the same to the bit: no layer is random, and weights don't change between forward and backward.
    """

    activation_checkpointing = False

    def run(self, level: Callable[..., Tensor], *inputs: Any) -> Tensor:  # noqa: ANN401  a level's arguments
        """Run a level, checkpointed if enabled. It must not change its inputs in place."""
        if not self.activation_checkpointing:
            return level(*inputs)
        output: Tensor = checkpoint(level, *inputs, use_reentrant=False, preserve_rng_state=False)
        return output


def enable_activation_checkpointing(module: nn.Module) -> None:
    """Enable activation checkpointing in a module and its submodules."""
    for each in module.modules():
        if isinstance(each, CheckpointedModule):
            each.activation_checkpointing = True
