"""How much memory a process will need: an estimate, before anything is trained."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from colordist.color import ColorSpace
from colordist.config import BatchArithmetic, Config
from colordist.models import build_discriminator, build_generator


@dataclass(frozen=True)
class Memory:
    """Bytes that one process needs on its device, by what they are for."""

    weights: int
    """With gradients, Adam's two moments, and the generator's EMA copy."""
    activations: int
    """What backward needs of one micro-batch."""

    def __str__(self) -> str:
        total = (self.weights + self.activations) / 2**20
        parts = f"weights, gradients, Adam, EMA {self.weights / 2**20:.0f}; activations {self.activations / 2**20:.0f}"
        return f"memory per process: about {total:.0f} MiB ({parts}), besides the images and PyTorch itself"


def estimate(config: Config, batches: BatchArithmetic) -> Memory:
    """Estimate a process's memory from the shapes that its step would have; nothing is computed."""
    micro, size = -(-batches.per_process // batches.accumulation), config.data.image_size
    wide = 8 if config.train.precision == "fp64" else 4
    narrow = 2 if config.train.precision in ("bf16", "fp16") else wide
    color_space = ColorSpace(config.model.color_space)
    with torch.device("meta"):
        generator = build_generator(config.model)
        grey = torch.empty(micro, 1, size, size)
        color = torch.empty(micro, color_space.channels, size, size)
        weights, activations = 5 * _parameters(generator), _saved(generator, grey)
        if config.task == "cgan":
            plain = replace(config.discriminator, spectral_norm=False)  # which only holds a few vectors
            discriminator = build_discriminator(plain, color_space.channels)
            weights += 4 * _parameters(discriminator)
            # Real and fake pass through it together, while the generator's graph waits for its own turn.
            twice = torch.cat([grey, grey]), torch.cat([color, color])
            learning, judging = _saved(discriminator, *twice), _saved(discriminator, grey, color)
            waiting = activations if batches.accumulation == 1 else 0
            activations = max(waiting + learning, activations + judging)
    return Memory(weights * wide, activations * narrow)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _saved(module: nn.Module, *inputs: Tensor) -> int:
    """How many numbers autograd keeps of a forward pass, besides the parameters."""
    parameters = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in parameters:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(*inputs)
    return sum(tensor.numel() for tensor in kept.values())
