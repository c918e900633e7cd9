"""Train networks that colour grey images: on one CPU, one GPU or a cluster, with the same result."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colordist.inference.colorizer import Colorizer


def load(run: str | Path, resolution: int | None = None) -> "Colorizer":
    """A trained network, ready to colour::

        colorizer = colordist.load("runs/horses")
        picture = colorizer(Image.open("photo.jpg"))
        picture.save("photo-coloured.png")
        another = colorizer(Image.open("photo.jpg"), variant=1)  # if it was trained with model.noise

    run: a run folder (its latest snapshot is used), or a snapshot's folder.
    resolution: of the network's colours: the shorter side in pixels. Default: the one it was trained at.

    Raises UserError, one line, if there is no snapshot or if it can't work at that resolution.
    """
    from colordist.inference.colorizer import load  # imports torch, which takes seconds

    return load(Path(run), resolution)
