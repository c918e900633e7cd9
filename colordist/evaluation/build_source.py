"""From settings to the images."""

from colordist import registry
from colordist.config import DataConfig
from colordist.data.source import ImageSource, Source, part_of_training
from colordist.engine.runtime import Engine


def build_source(config: DataConfig, engine: Engine) -> Source:
    """The images. Rank 0 downloads and decodes what is missing, while the others wait.

    Then local rank 0 of each other machine does; where the disk is shared, nothing is left to do.
    """
    component: ImageSource = registry.component("source", config.source)(config)

    def open_here() -> Source:
        with engine.stall_exempt("fetching or decoding images"):
            return component.open()

    opened: Source | None = None
    if component.prepared_once:
        first = engine.on_ranks(open_here, here=engine.is_main)
        elsewhere = engine.on_ranks(open_here, here=engine.is_first_on_machine and not engine.is_main)
        opened = first or elsewhere  # all ranks call both
    return part_of_training(opened or component.open(), config.fraction, config.seed)
