"""From settings to the images."""

from colordist import registry
from colordist.config import DataConfig
from colordist.data.source import ImageSource, Source, part_of_training
from colordist.engine.runtime import Engine


def build_source(config: DataConfig, engine: Engine) -> Source:
    """The images. One process downloads or decodes them while the others wait.

    Then one on each other machine: where the disk is shared, that finds everything done.
    """
    component = image_source(config)
    opened: list[Source] = []

    def open_here() -> None:
        with engine.stall_exempt("fetching or decoding images"):
            opened.append(component.open())

    if component.prepared_once:
        engine.run_on_all_ranks(open_here, here=engine.is_main)
        first_elsewhere = engine.is_first_on_machine and not engine.is_main
        engine.run_on_all_ranks(open_here, here=first_elsewhere)
    return part_of_training(opened[0] if opened else component.open(), config.fraction, config.seed)


def image_source(config: DataConfig) -> ImageSource:
    """The component that opens the images of some settings."""
    component: ImageSource = registry.component("source", config.source)(config)
    return component
