"""Construction of the image source from settings."""

from colordist import registry
from colordist.config import DataConfig
from colordist.data.source import ImageSource, Source, part_of_training
from colordist.engine.runtime import Engine


def build_source(config: DataConfig, engine: Engine) -> Source:
    """Open the image source. Images that are missing are downloaded and decoded once per machine."""
    component: ImageSource = registry.component("source", config.source)(config)
    prepared_once = component.prepared_once
    opened = engine.fetch(component.open, "fetching or decoding images") if prepared_once else component.open()
    return part_of_training(opened, config.fraction, config.seed)
