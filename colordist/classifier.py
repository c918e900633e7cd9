"""Train the classifier of the metric `classifier`: ``python -m colordist.classifier --data.source cifar10 -o DIR``."""

from pathlib import Path
from typing import Any, Literal

from colordist.cli import run
from colordist.cli.parser import read_sections
from colordist.config import DataConfig, UserError


def main() -> None:
    """Parse, build, run, close."""
    run(lambda: train(*parse()))


def parse(arguments: list[str] | None = None) -> tuple[DataConfig, Path, int, int, str]:
    """Parse the data settings, the output folder, the number of epochs, the seed and the precision."""

    def add_options(parser: Any) -> None:  # noqa: ANN401  a jsonargparse parser
        parser.usage = "%(prog)s -o DIR [--data.KEY VALUE ...] [--epochs N] [--seed N] [--precision fp32] [--help]"
        parser.add_argument("-o", "--output", type=str, help="Folder to write.")
        parser.add_argument("--epochs", type=int, default=20, help="Epochs.")
        parser.add_argument("--seed", type=int, default=0, help="Seed of weights, order of images and augmentation.")
        parser.add_argument("--precision", type=Literal["auto", "fp32", "bf16"], default="auto", help="Precision.")

    description = "Train a classifier for the metric `classifier`. One process."
    found = read_sections("classifier", description, arguments, wanted=["data"], add_options=add_options)
    if found["output"] is None:
        raise UserError("no output folder: name one, as -o classifier")
    for name, least in (("epochs", 1), ("seed", 0)):
        if found[name] < least:
            raise UserError(f"--{name} is {found[name]}, but must be at least {least}")
    return found["data"], Path(found["output"]).expanduser(), found["epochs"], found["seed"], found["precision"]


def train(data: DataConfig, folder: Path, epochs: int, seed: int, precision: str) -> None:
    """Train the classifier, write it and print its accuracy."""
    from colordist.evaluation.build_classifier import train_classifier

    about = train_classifier(data, folder, epochs, seed, precision)
    print(
        f"{folder}: accuracy {about.accuracy:.1f} % on the test images, {about.accuracy_on_grey:.1f} % without colour"
    )


if __name__ == "__main__":
    main()
