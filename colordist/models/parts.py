"""The parts of a generator: one may be held while the other learns."""

from collections.abc import Collection

from torch import nn

from colordist.config import Part


def part_of(module: nn.Module, name: str) -> Part:
    """The part to which a parameter or a layer belongs. name: as in ``named_parameters`` or ``named_modules``.

    Architectures say in ``ENCODER`` which of their children are the encoder; all the rest is the decoder.
    """
    return "encoder" if name.split(".")[0] in getattr(module, "ENCODER", ()) else "decoder"


def freeze(module: nn.Module, parts: Collection[Part]) -> None:
    """Freeze parts of a generator: no gradients, and eval mode, so that they compute the same in training as later."""
    for name, parameter in module.named_parameters():
        if part_of(module, name) in parts:
            parameter.requires_grad_(False)
    for name, layer in module.named_modules():
        if name and part_of(module, name) in parts:
            layer.eval()
