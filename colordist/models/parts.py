"""Encoder and decoder of a generator, which can be frozen separately."""

from collections.abc import Collection

from torch import nn

from colordist.optimizers import Part


def part_of(module: nn.Module, name: str) -> Part:
    """The part that a parameter or layer belongs to. name: as in ``named_parameters`` or ``named_modules``.

    ``ENCODER`` of an architecture names the children that are the encoder; all others are the decoder.
    """
    return "encoder" if name.split(".")[0] in getattr(module, "ENCODER", ()) else "decoder"


def freeze(module: nn.Module, parts: Collection[Part]) -> None:
    """Freeze parts of a generator: no gradients, and eval mode."""
    for name, parameter in module.named_parameters():
        if part_of(module, name) in parts:
            parameter.requires_grad_(False)
    for name, layer in module.named_modules():
        if name and part_of(module, name) in parts:
            layer.eval()
