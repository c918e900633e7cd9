"""From a config to a source of images."""

import os
from pathlib import Path

from colordist.config import DataConfig
from colordist.data.source import Source, part_of_training
from colordist.engine.runtime import Engine


def build_source(config: DataConfig, engine: Engine) -> Source:
    """Open a source. Rank 0 downloads and decodes, while the others wait.

    Then one process on each other machine: where the disk is shared, it finds everything done.
    """
    opened: list[Source] = []

    def open_here() -> None:
        with engine.stall_exempt("fetching or decoding images"):
            opened.append(open_source(config))

    if config.source != "synthetic":  # which has nothing to fetch
        engine.run_on_all_ranks(open_here, here=engine.is_main)
        first_elsewhere = engine.is_first_on_machine and not engine.is_main
        engine.run_on_all_ranks(open_here, here=first_elsewhere)
    return opened[0] if opened else open_source(config)


def open_source(config: DataConfig) -> Source:
    """The images of one config. Raises UserError where they can't be had."""
    return part_of_training(_whole_source(config), config.fraction, config.seed)


def _whole_source(config: DataConfig) -> Source:
    match config.source:
        case "synthetic":
            from colordist.data.sources.synthetic import synthetic

            return synthetic(config.seed, config.image_size, config.train_images, config.test_images)
        case "cifar10" | "cifar100" | "stl10" as name:
            from colordist.data.sources.archive import archive, download

            download(name, Path(config.root))
            return archive(name, Path(config.root), config.class_names, config.image_size)
        case "folder":
            from colordist.data.sources.folder import folder

            return folder(Path(config.root), config.class_names, config.image_size, cache_folder())
        case "shards":
            from colordist.data.sources.shards import shards

            return shards(config.root, config.class_names, config.image_size, cache_folder() / "shards")


def cache_folder() -> Path:
    """Where decoded images and fetched shards are kept for the next start."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "colordist"
