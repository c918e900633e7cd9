"""Metric specs of a run: ``metrics.json``, written when it starts."""

from colordist.errors import UserError
from colordist.files.atomic import content, replace_text, writing
from colordist.files.documents import Malformed
from colordist.metrics import SPECS
from colordist.metrics.specs import ScoreSpecs
from colordist.run.folder import RunFolder


def save_specs(folder: RunFolder, specs: ScoreSpecs) -> None:
    """Write metrics.json. Raises RunError where that is impossible."""
    with writing(folder.specs_file):
        replace_text(folder.specs_file, specs.to_json())


def load_specs(folder: RunFolder) -> ScoreSpecs:
    """Read metrics.json; without one, the specs of colordist's own metrics. Raises UserError for a damaged file."""
    if (text := content(folder.specs_file)) is None:
        return SPECS
    try:
        return ScoreSpecs.from_json(text)
    except Malformed as error:
        raise UserError(f"{folder.specs_file} is damaged ({error}): move it away, the next start writes it") from None
