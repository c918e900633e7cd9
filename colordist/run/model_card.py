"""Model cards (Mitchell et al. 2019, arXiv 1810.03993): data, recipe, scores and limits of a snapshot."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from colordist import registry
from colordist.config import Config, as_dict
from colordist.metrics.specs import MetricSpec, ScoreSpecs
from colordist.metrics.table import Scores, beside_references, markdown
from colordist.run.identity import changed_keys

_PATHS = ("data.root", "train.init_from")  # specific to a machine
FOLDER = "FOLDER_OF_THIS_FILE"
"""Stands for MODEL in the examples of a card."""
_LIMITS = """\
- It guesses. Many colours can't be told from grey; what it answers is likely at best, and never evidence of what
  colour a thing was. Don't pass its pictures off as colour photographs.
- Where several colours are likely it tends towards grey or brown, the middle of them, above all if it was trained by
  a pixel distance alone.
- It was trained and scored at the size named above. In a larger photo it decides colours at that size; what is small
  there gets none of its own.
- It knows what its training images show, and their biases: skin, clothes and places that are rare or missing there get
  the colours of what is frequent. Nobody has examined it for that.
- Scores are means over the test images named above, after rounding to 8 bits. Other images have other scores."""


@dataclass(frozen=True)
class ModelCard:
    """The card of a run's snapshots: the same on any machine."""

    config: Config
    train_images: int
    test_images: int
    code: str
    """Revision of the code."""
    hub_model: str | None = None
    """The Hub's ``user/name@commit`` that the generator began with, if it did."""

    @property
    def origin(self) -> dict[str, str]:
        """What model.json says of data and initial weights."""
        return {"source": self.config.data.source} | ({"init_from": self.hub_model} if self.hub_model else {})

    def text(self, step: int, scores: Scores, references: Mapping[str, Scores], specs: ScoreSpecs) -> str:
        """Format the card of one snapshot in Markdown. references: scores of baselines and oracle, by name."""
        data, train, model = self.config.data, self.config.train, self.config.model
        size, classes = (
            f"{data.image_size}x{data.image_size}",
            ", ".join(getattr(data, "class_names", None) or ("all",)),
        )
        batch, seed = train.global_batch_size, self.config.seed
        others = [f"those of a pretrained {name} in the encoder" for name in model.pretrained]
        begin = "the weights of another snapshot" if train.init_from else " and ".join(["random weights", *others])
        begin = f"the weights of `{self.hub_model}` on the Hugging Face Hub" if self.hub_model else begin
        task = registry.component("task", self.config.task.name)(self.config.task, model)
        noise = ", another sample for each noise" if task.variants != 1 else ""
        hints = ", and colours of some of its points if there are any (`--hints`)," if task.hint_channels else ""
        source = registry.component("source", data.source)
        return f"""\
# A network that colours grey images

The generator `{model.name}` of colordist. It takes a grey image{hints} and answers with its colours{noise}.
It was trained {task.description or f"by the task `{self.config.task.name}`"}.

## Use

    colordist colorize {FOLDER} photo.jpg -o coloured

    import colordist
    from PIL import Image

    colordist.load("{FOLDER}")(Image.open("photo.jpg")).save("coloured.png")

## Data

Source `{data.source}`: {source.description or "images"}. Classes: {classes}.
It learned from {self.train_images} images and was scored on {self.test_images} others, all at {size} pixels.

## Recipe

{step} of {train.steps} steps of {batch} images, beginning with {begin}, in {train.precision}, seed {seed}.
These are averaged weights. Code {self.code}. Settings that are not the defaults:

{self._settings()}

## Scores

{beside_references(specs, references, {f"step {step}": scores}, markdown)}

{_weakness(scores, references, specs)}

## Limits

{_LIMITS}
"""

    def _settings(self) -> str:
        """The learning keys that differ from their defaults, one per line."""
        changed = {key: value for key, value in changed_keys(as_dict(self.config)).items() if key not in _PATHS}
        return "\n".join(f"- `{key}: {json.dumps(value)}`" for key, value in changed.items()) or "- none"


def _weakness(scores: Scores, references: Mapping[str, Scores], specs: ScoreSpecs) -> str:
    """A sentence on the score with the smallest gain over the better baseline."""
    ranked = [spec for spec in specs.metrics if spec.is_compared]
    gains = [(gain, spec.label) for spec in ranked if (gain := _gain(spec, scores, references, specs)) is not None]
    if not gains:
        return "There are no baselines to compare the scores with."
    gain, label = min(gains)
    if gain < 0:
        return f"Weakest score: {label}, worse than the better baseline."
    return f"Weakest score: {label}, {gain:.0%} of the way from the better baseline to the oracle."


def _gain(spec: MetricSpec, scores: Scores, references: Mapping[str, Scores], specs: ScoreSpecs) -> float | None:
    """The gain over the better baseline, as a fraction of the oracle's; None where either is missing."""
    found = {name: of_all[spec.name] for name, of_all in references.items() if spec.name in of_all}
    baselines = [found[each.name] for each in specs.of_role("baseline") if each.name in found]
    limit = specs.best(spec)
    if limit is None or limit.name not in found or spec.name not in scores or not baselines:
        return None
    best = found[limit.name]
    whole = min(abs(best - baseline) for baseline in baselines)
    return 1 - abs(best - scores[spec.name]) / whole if whole > 0 else None
