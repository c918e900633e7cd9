"""Training of image colourization networks: on one CPU, one GPU or a cluster, with the same result."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from colordist.errors import RunError, UserError

if TYPE_CHECKING:
    from colordist.inference.colorizer import Colorizer

__all__ = ["RunError", "UserError", "load"]
__version__ = "0.2.0"  # the one place: pyproject.toml reads it from here


def load(
    model: str | Path,
    resolution: int | None = None,
    upsample: str = "guided",
    solver_steps: int | None = None,
    saturation: float = 1.0,
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
    saturation: factor of the chroma, 0 (grey) to 3; 1: as the network says.

    May be called by several threads at once, as the result may be. Neither random numbers nor settings of torch or
    Python outside of it are changed.

    Raises ``colordist.UserError``, one line that names the argument, if there is no snapshot, for a resolution that the
    network doesn't support, for an unknown way of upsampling, or for a saturation out of range;
    ``colordist.RunError`` if files can't be read now.
    """
    from colordist.inference.colorizer import load  # imports torch, which takes seconds

    if not isinstance(model, str | os.PathLike):
        raise UserError(f"model is a {type(model).__name__}, but must be a path or a name: try 'photos-small'")
    return load(Path(model), resolution, upsample, solver_steps, saturation)
