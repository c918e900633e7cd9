"""How much memory a process will need: an estimate, before anything is trained."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from colordist.color import ColorSpace
from colordist.config import BatchArithmetic, Config
from colordist.models import build_decolorizer, build_discriminator, build_generator
from colordist.models.parts import freeze


@dataclass(frozen=True)
class Memory:
    """Bytes that one process needs on its device, by what they are for."""

    weights: int
    """With gradients, Adam's two moments, and the generator's EMA copy; and the pools of `cyclegan`."""
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
    with FakeTensorMode():  # the device "meta" doesn't know of attention that keeps nothing of all pairs of pixels
        generator = build_generator(config.model)
        freeze(generator, config.train.freeze)
        grey = torch.empty(micro, 1, size, size)
        color = torch.empty(micro, color_space.channels, size, size)
        noise = [torch.empty(micro * config.loss.draws, config.model.noise)] if config.model.noise else []
        weights = 5 * _parameters(generator) + 2 * _parameters(generator, learning=False)
        activations = _saved(generator, grey, *noise)
        if config.task == "cgan":
            plain = replace(config.discriminator, spectral_norm=False)  # which only holds a few vectors
            discriminator = build_discriminator(plain, color_space.channels)
            weights += 4 * _parameters(discriminator)
            # Real and fake pass through it together, while the generator's graph waits for its own turn.
            twice = torch.cat([grey, grey]), torch.cat([color, color])
            penalised = config.loss.r1_weight > 0 or config.loss.r2_weight > 0
            learning = _saved(discriminator, *twice, differentiate=penalised)
            judging = _saved(discriminator, grey, color)
            waiting = activations if batches.accumulation == 1 else 0
            activations = max(waiting + learning, activations + judging)
        if config.task == "cyclegan":
            more, activations = _of_cyclegan(config, activations, micro, at_once=batches.accumulation == 1)
            weights += more
    return Memory(weights * wide, activations * narrow)


def _of_cyclegan(config: Config, coloring: int, micro: int, *, at_once: bool) -> tuple[int, int]:
    """Numbers: what the other three networks and the pools hold, and what the turn that needs most keeps.

    coloring: what backward needs of one pass through the generator.
    """
    size, plain = config.data.image_size, replace(config.discriminator, spectral_norm=False)
    image, grey = torch.empty(micro, 3, size, size), torch.empty(micro, 1, size, size)
    decolorizer = build_decolorizer(config.model)
    discriminators = [build_discriminator(plain, channels, conditional=False) for channels in (3, 1)]
    held = 4 * sum(_parameters(module) for module in (decolorizer, *discriminators))
    held += 4 * config.train.global_batch_size * config.loss.pool_slots * size**2  # three channels, and one
    back, judging = _saved(decolorizer, image), _saved(discriminators[0], image)
    # The generator's own pass, there and back again, and back and there, besides what waits for the decolorizer's turn.
    first = 2 * coloring + back + judging + at_once * back
    # The decolorizer's own, on to colour again, and two passes from what there is.
    second = 3 * back + coloring + _saved(discriminators[1], grey)
    both = _saved(discriminators[0], torch.cat([image, image])) + at_once * (coloring + back)
    return held, max(first, second, both)


def _parameters(module: nn.Module, *, learning: bool = True) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad == learning)


def _saved(module: nn.Module, *inputs: Tensor, differentiate: bool = False) -> int:
    """How many numbers autograd keeps of a forward pass, besides the parameters.

    differentiate: and of the gradient with respect to the last input, for a penalty on it.
    """
    parameters = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in parameters:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = module(*inputs[:-1], inputs[-1].requires_grad_(differentiate))
        if differentiate:
            torch.autograd.grad(answer.sum(), inputs[-1], create_graph=True)
    # Of a part, all is kept.
    return sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
