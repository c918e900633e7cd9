"""Model cards on the Hugging Face Hub: a snapshot's card with YAML front matter, its name there and a sample grid."""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from colordist.errors import UserError, one_line
from colordist.files.download import quiet
from colordist.files.hub import HubModel
from colordist.metrics.specs import ScoreSpecs
from colordist.run.model_card import FOLDER

TASK = "image-to-image"
"""The Hub's name of the task: it has none for colourization."""
_SAMPLES = "\n\n![test images: grey, answer, original]({picture})\n"


def hub_card(
    text: str,
    about: Mapping[str, Any],
    model: HubModel,
    specs: ScoreSpecs,
    *,
    license: str | None = None,
    picture: str | None = None,
) -> str:
    """Format a snapshot's card for the Hub. Front matter that it has already is kept, but for the license.

    text: the card's Markdown. about: the content of model.json. license: the Hub's identifier, as `apache-2.0`.
    picture: file name of a sample grid beside the card. Raises UserError for front matter that the Hub can't read.
    """
    from huggingface_hub import ModelCard

    try:
        with quiet("huggingface_hub"):
            written = ModelCard(text)
            own = written.data.to_dict()  # type: ignore[no-untyped-call]
            merged = metadata(about, model, specs) | own | ({"license": license} if license else {})
            front = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)
            return str(ModelCard(f"---\n{front}---\n\n{_body(written.text.lstrip(), model, picture)}"))
    except Exception as error:  # of YAML, and of the Hub's client for values of another type
        raise UserError(f"README.md of the snapshot has front matter that can't be read ({one_line(error)})") from None


def _body(text: str, model: HubModel, picture: str | None) -> str:
    """The card's Markdown, with the sample grid below the introduction."""
    introduction, heading, rest = text.replace(FOLDER, str(model)).partition("\n## ")
    samples = _SAMPLES.format(picture=picture) if picture else "\n" if heading else ""
    return introduction.rstrip() + samples + heading + rest


def metadata(about: Mapping[str, Any], model: HubModel, specs: ScoreSpecs) -> dict[str, Any]:
    """Front matter: library, task, tags, the model that it began with, scores."""
    from huggingface_hub import ModelCardData

    base = HubModel.parse(str(about.get("init_from")))
    data = ModelCardData(
        library_name="colordist",
        pipeline_tag=TASK,
        tags=["colorization", "image-colorization", about["task"]["name"], about["model"]["name"]],
        base_model=base.repository if base else None,
        model_name=model.repository.partition("/")[2],
        eval_results=_results(about, specs) or None,
    )
    found: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return {key: value for key, value in found.items() if value is not None}


def _results(about: Mapping[str, Any], specs: ScoreSpecs) -> list[Any]:
    """The scores as ``EvalResult``s; none where model.json doesn't say on which images."""
    from huggingface_hub import EvalResult

    source, size, scores = about.get("source"), about.get("image_size"), about.get("scores") or {}
    found = {spec: scores.get(spec.name) for spec in specs.metrics if spec.role != "bound"} if source else {}
    return [
        EvalResult(
            task_type=TASK,
            task_name="Image colourization",
            dataset_type=str(source),
            dataset_name=f"{source}, {size}x{size} pixels",
            dataset_split="test",
            metric_type=spec.name,
            metric_name=spec.label,
            metric_value=value,
        )
        for spec, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]
