"""Spectral normalisation of weights (Miyato et al. 2018, arXiv 1802.05957, algorithm 1), in few operations.

Unlike in ``torch.nn.utils.parametrizations.spectral_norm``, the power iteration isn't part of ``forward`` but of
``iterate_spectral_norm``, called once per phase: so the result doesn't depend on the number of micro-batches.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

_EPSILON = 1e-12  # as of F.normalize


def _matrix(weight: Tensor) -> Tensor:
    """[outputs, inputs, ...] -> [outputs, the rest], with inputs last: of a channels_last weight a view."""
    return weight.movedim(1, -1).flatten(1)


class _Normalize(torch.autograd.Function):
    """A weight over its largest singular value, for singular vectors ``left`` and ``right``, taken as constants."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, left: Tensor, right: Tensor) -> Tensor:  # noqa: ANN401
        sigma = left @ (_matrix(weight) @ right)
        normalized = weight / sigma
        ctx.save_for_backward(normalized, sigma, left, right)
        return normalized

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """(gradient - <gradient, normalized> left right^T) / sigma."""
        normalized, sigma, left, right = ctx.saved_tensors
        matrix = _matrix(gradient)
        along = torch.dot(matrix.flatten(), _matrix(normalized).flatten())
        matrix = torch.addr(matrix, left * along, right, alpha=-1) / sigma
        outputs, inputs, *kernel = gradient.shape
        return matrix.view(outputs, *kernel, inputs).movedim(-1, 1), None, None


class SpectralNorm(nn.Module):
    """Parametrization of a weight [outputs, inputs, ...]: the weight over its largest singular value, same shape."""

    left: Tensor
    columns: Tensor
    """The right singular vector, in the order of ``_matrix``. Older checkpoints have ``right``, with inputs first."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = weight.shape[1:]
        self.register_buffer("left", F.normalize(torch.randn(len(weight)), dim=0))
        self.register_buffer("columns", F.normalize(torch.randn(self.shape.numel()), dim=0))
        for _ in range(15):
            iterate([self], [weight])

    def forward(self, weight: Tensor) -> Tensor:
        """The weight over its largest singular value; same shape."""
        with torch.autocast(weight.device.type, enabled=False):
            normalized: Tensor = _Normalize.apply(weight, self.left, self.columns)
            return normalized

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:  # noqa: ANN401
        """Load a state, also of an older version."""
        right = state_dict.pop(f"{prefix}right", None)
        if right is not None:
            state_dict[f"{prefix}columns"] = _matrix(right.view(1, *self.shape)).flatten()
        super()._load_from_state_dict(state_dict, prefix, *others)


@torch.no_grad()
def iterate(norms: Sequence[SpectralNorm], weights: Sequence[Tensor]) -> None:
    """Run one power iteration of each for the first singular vectors."""
    matrices, lefts, rights = [_matrix(each) for each in weights], [n.left for n in norms], [n.columns for n in norms]
    for matrix, left, right in zip(matrices, lefts, rights, strict=True):
        torch.mv(matrix.T, left, out=right)
    _normalize(rights)
    for matrix, left, right in zip(matrices, lefts, rights, strict=True):
        torch.mv(matrix, right, out=left)
    _normalize(lefts)


def _normalize(vectors: list[Tensor]) -> None:
    """Scale vectors to length 1, in place."""
    lengths = torch._foreach_norm(vectors)
    torch._foreach_clamp_min_(lengths, _EPSILON)
    torch._foreach_div_(vectors, lengths)


def add_spectral_norm(module: nn.Module) -> None:
    """Add spectral normalisation to every convolution of a module."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))


def iterate_spectral_norm(module: nn.Module) -> None:
    """Run one power iteration of every spectral norm in a module."""
    lists = [each for each in module.modules() if isinstance(each, parametrize.ParametrizationList)]
    found = [(each[0], each.original) for each in lists if isinstance(each[0], SpectralNorm)]
    if found:
        norms, weights = zip(*found, strict=True)
        iterate(norms, weights)
