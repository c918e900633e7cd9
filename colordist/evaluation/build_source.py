"""Construction of the image source from settings."""

from colordist import registry
from colordist.config import DataConfig
from colordist.data.source import ImageSource, Source, part_of_training
from colordist.engine.runtime import Engine


def build_source(config: DataConfig, engine: Engine) -> Source:
    """Open the image source. Rank 0 downloads and decodes what is missing, then local rank 0 of the other machines.

    On a shared disk nothing is left to do for the latter.
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
