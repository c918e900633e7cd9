"""Metric specs of a run: ``metrics.json``, written when it starts."""

from colordist.config import UserError
from colordist.files.atomic import content, replace_text, writing
from colordist.metrics import SPECS
from colordist.metrics.specs import ScoreSpecs
from colordist.run.folder import RunFolder


def save_specs(folder: RunFolder, specs: ScoreSpecs) -> None:
    """Write metrics.json. Raises RunError where that is impossible."""
    with writing(folder.specs_file):
        replace_text(folder.specs_file, specs.to_json())


def load_specs(folder: RunFolder) -> ScoreSpecs:
    """Read metrics.json; without one, the specs of colordist's own metrics. Raises UserError for a damaged file.

    Raises RunError for one that can't be read.
    """
    if (text := content(folder.specs_file)) is None:
        return SPECS
    try:
        return ScoreSpecs.from_json(text.decode())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder.specs_file} is damaged ({reason}): move it away, the next start writes it") from None
