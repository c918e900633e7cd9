"""ONNX export of a snapshot, verified with onnxruntime."""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from colordist.color import AB_SCALE
from colordist.errors import RunError, UserError
from colordist.extras import needs_extra
from colordist.files.atomic import replacing
from colordist.run.snapshot import Snapshot

TOLERANCE = 1e-4
MARK = b"colordist export"
"""In the metadata of every exported file."""


class Exported(nn.Module):
    """A snapshot with input and output in standard units."""

    def __init__(self, trained: Snapshot) -> None:
        super().__init__()
        self.trained, self.networks = trained, trained.networks
        self.task = trained.task
        self.lab = trained.task.color_space.name == "lab"

    def forward(self, grey: Tensor, noise: Tensor | None = None, hints: Tensor | None = None) -> Tensor:
        """grey [B, 1, H, W] in [0, 1] -> Lab a,b [B, 2, H, W], or sRGB [B, 3, H, W] in about [0, 1].

        noise: standard normal, [B, C, H, W], for a flow. hints: for a network that takes some, [B, C + 1, H, W]:
        colours in the network's units, then a mask, all 0 where there are none (`data/hints.py`).
        """
        color = self.trained.sample(grey * 2 - 1, noise, hints)
        return color * AB_SCALE if self.lab else (color + 1) / 2

    def inputs(self, *shape: int) -> dict[str, Tensor]:
        """Random inputs by name, the same each time. shape: [B, 1, H, W] of grey."""
        grey = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        found = {"grey": grey}
        if (noise := self.task.variant_noise(0, grey * 2 - 1)) is not None:
            found["noise"] = noise
        if channels := self.task.hint_channels:
            mask = (grey > 0.9).to(grey.dtype)
            found["hints"] = torch.cat([grey.expand(-1, channels - 1, -1, -1) * mask, mask], dim=1)
        return found


def write(file: Path, trained: Snapshot) -> float:
    """Export a snapshot as ONNX, for any batch size and any multiple of the generator's size multiple.

    Returns the largest difference between onnxruntime's output and torch's, over sizes other than the traced one,
    relative to the largest output. Raises UserError for a missing package or a network with latent codes, RunError for
    a difference above TOLERANCE.
    """
    if trained.task.model.noise_size:
        raise UserError("a network with latent codes can't be exported: train one with model.noise 0")
    with needs_extra("onnx", "export"):
        import onnxruntime  # noqa: F401  the check needs it
        import onnxscript  # noqa: F401  torch's exporter needs it
    network, unit = Exported(trained).float().eval(), trained.task.model.size_multiple
    examples = network.inputs(2, 1, 4 * unit, 6 * unit)
    # Height and width are declared as multiples of this unit, so that the sizes of skip connections agree.
    height, width = (unit * torch.export.Dim(name, min=2, max=4096) for name in ("rows", "columns"))
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            kwargs=examples,
            input_names=[*examples],
            output_names=["color"],
            dynamic_shapes={name: {0: batch, 2: height, 3: width} for name in examples},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # the dynamo exporter returns one
    program.model.metadata_props["written_by"] = MARK.decode()
    with replacing(file) as draft:
        program.save(draft, external_data=False)
        if not (worst := _difference(network, unit, draft)) <= TOLERANCE:
            reason = f"differs by {worst:.1e}, more than {TOLERANCE:.0e}"
            raise RunError(f"onnxruntime's output {reason}: {file} isn't written")
    return worst


def _difference(network: Exported, unit: int, file: Path) -> float:
    """Largest difference between onnxruntime's output and torch's, relative to the largest output, at several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for shape in ((1, 1, 2 * unit, 2 * unit), (3, 1, 5 * unit, 3 * unit), (2, 1, 8 * unit, 16 * unit)):
        inputs = network.inputs(*shape)
        with torch.no_grad():
            expected = network(**inputs)
        try:
            found = torch.from_numpy(session.run(None, {name: each.numpy() for name, each in inputs.items()})[0])
        except Exception as error:  # onnxruntime's own classes
            raise RunError(
                f"the exported network doesn't take images of shape {shape}: in the task's sample(), use grey.shape[0] "
                f"and not len(grey), which fixes the batch size ({str(error).splitlines()[0]})"
            ) from None
        scale = max(1.0, expected.abs().max().item())
        worst = max(worst, (found - expected).abs().max().item() / scale)
    return worst
