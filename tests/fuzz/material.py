"""The smallest training, folders for cases, and the number of cases."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis

SEED = os.environ.get("COLORDIST_FUZZ_SEED", "")
"""Of a random run; empty: the same cases each time."""
_TIMES = int(os.environ.get("COLORDIST_FUZZ_TIMES", "1"))

TINY = [
    *["--data.train_images", "12", "--data.test_images", "4", "--model.width", "4", "--model.depth", "1"],
    *["--data.image_size", "16", "--train.global_batch_size", "4", "--train.precision", "fp32", "--train.ema_images"],
    *["8", "--log.every", "2", "--evaluate.every", "4", "--checkpoint.every", "2", "--track.wandb", "off"],
]
"""Settings of a run of half a second."""
AUTOENCODER = ["--task.name", "autoencoder", "--task.hints", "true"]


def fresh(place: Path, *sources: Path) -> Path:
    """Empty a folder, and copy files and folders into it."""
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, place / source.name, symlinks=True)
        else:
            shutil.copy(source, place / source.name)
    return place


def cases(count: int) -> Callable[[Any], Any]:
    """Decorator of a test of hypothesis: its usual number of cases."""

    def decorate(test: Any) -> Any:  # noqa: ANN401
        scaled = hypothesis.settings(max_examples=count * _TIMES)(test)
        return hypothesis.seed(int(SEED))(scaled) if SEED else scaled

    return decorate
