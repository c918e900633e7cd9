"""Training of image colourization networks: on one CPU, one GPU or a cluster, with the same result."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colordist.inference.colorizer import Colorizer

__version__ = "0.2.0"  # the one place: pyproject.toml reads it from here


def load(
    model: str | Path, resolution: int | None = None, upsample: str = "guided", solver_steps: int | None = None
) -> "Colorizer":
    """Load a trained network::

        colorizer = colordist.load("photos-small")
        picture = colorizer(Image.open("photo.jpg"))
        picture.save("photo-coloured.png")
        another = colorizer(Image.open("photo.jpg"), variant=1)  # for networks that take noise

    model: a run folder, for its newest snapshot; a snapshot's folder; a bundled model's name, as photos-small; or the
    name of a model of the Hugging Face Hub, `user/name` or `user/name@revision`.
    resolution: at which the network runs: the shorter side in pixels. Default: the training resolution.
    upsample: how its colours get the photo's resolution: `guided`, sharpened by the photo's luma, or `bilinear`.
    solver_steps: of a flow; default: as trained.

    Raises UserError, one line, if there is no snapshot, for a resolution that the network doesn't support, or for an
    unknown way of upsampling.
    """
    from colordist.inference.colorizer import load  # imports torch, which takes seconds

    return load(Path(model), resolution, upsample, solver_steps)
