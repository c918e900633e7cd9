"""A trained classifier on disk: ``classifier.safetensors`` and ``classifier.json``."""

from dataclasses import asdict, dataclass
from pathlib import Path

from colordist.files import weights
from colordist.models.classifier import Classifier

FORMAT = 1
_WHAT = _STEM = "classifier"


@dataclass(frozen=True)
class About:
    """Training data and accuracy of a classifier."""

    classes: tuple[str, ...]
    """Their names, in the order of its logits."""
    image_size: int
    """Width and height of the images in pixels."""
    images: str
    """Digests of the training and test images."""
    epochs: int
    seed: int
    accuracy: float
    """Accuracy on the test images in percent."""
    accuracy_on_grey: float
    """Accuracy on grey images, which needs no colour."""


def write(folder: Path, classifier: Classifier, about: About) -> None:
    """Write a folder atomically. Raises OSError."""
    weights.write(folder, _STEM, classifier, {"format": FORMAT, **asdict(about)})


def read(folder: Path) -> tuple[Classifier, About, str]:
    """Load a classifier, frozen, in eval mode, on the CPU; what it was trained on; its SHA-256.

    Raises UserError for a folder that holds none, a damaged one, or one that a newer version wrote.
    """
    with weights.reading(folder, _STEM, _WHAT):
        tensors, found = weights.read(folder, _STEM, _WHAT, (FORMAT,))
        digest = str(found["sha256"])
        about = About(**{name: found[name] for name in About.__dataclass_fields__} | {"classes": (*found["classes"],)})
        classifier = Classifier(len(about.classes))
        classifier.load_state_dict(tensors)
    return classifier.eval().requires_grad_(False), about, digest


def require_own(folder: Path) -> None:
    """Raise UserError for a folder that is there, unless it is a classifier and nothing else: it may be replaced."""
    weights.require_own(folder, _STEM)
