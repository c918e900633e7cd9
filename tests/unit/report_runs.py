"""Run folders that look trained, and the elements of a page, for tests of reports."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from helpers import config_with
from PIL import Image

from colordist.metrics.baselines import REFERENCES
from colordist.run.folder import RunFolder

REFERENCE = {  # by metric: grey, constant, oracle, target
    "ciede2000": (18.0, 14.0, 2.0, 0.0),
    "psnr": (16.0, 17.0, 30.0, 100.0),
    "colorfulness": (0.0, 20.0, 88.0, 86.0),
}


class Elements(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def trained(
    path: Path,
    *,
    scores: dict[str, float] | None = None,
    settings: dict[str, Any] | None = None,
    losses: int = 20,
    target: int = 0,
    answer: int = 1,
    images: str = "11111111 22222222",
    finished: bool = True,
) -> RunFolder:
    """A run folder. scores: its last ones; target, answer: seeds of the noise in its sample grid."""
    folder = RunFolder(path)
    given = settings or {}
    warmup = {} if given.get("task.name") == "autoencoder" else {"task.warmup_steps": 0}
    folder.write_settings(config_with({"train.steps": 10 * losses} | warmup | given))
    references = {
        f"reference/{each.name}/{metric}": values[place]
        for metric, values in REFERENCE.items()
        for place, each in enumerate(REFERENCES)
    }
    lines: list[dict[str, float]] = [{"step": 0, "images": 0, **references}]
    for place in range(1, losses + 1):
        line = {"step": 10 * place, "images": 160 * place, "pace/images_per_second": 100.0 + place}
        lines.append(line | {"loss/generator/l1": 1 / place, "loss/discriminator/real": 0.5})
        lines[-1] |= {"optimizer/generator/lr": 0.001, "diagnostics/generator/gradient_norm": 3.0}
        if scores and place in (losses // 2, losses):
            worse = {name: value + losses - place for name, value in scores.items()}
            lines.append({**_where(line), **{f"score/{name}": value for name, value in worse.items()}})
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder.samples.mkdir()
    noise = [np.random.default_rng(seed).integers(0, 256, (16, 4 * 16, 3), dtype=np.uint8) for seed in (target, answer)]
    grey = np.repeat(noise[0][..., :1], 3, axis=2)
    Image.fromarray(np.concatenate([grey, noise[1], noise[0]])).save(folder.samples / "step-000010.png")
    (path / "images").write_text(images + "\n")
    if finished:
        folder.mark("finished", 10 * losses)
    return folder


def _where(line: dict[str, float]) -> dict[str, float]:
    return {"step": line["step"], "images": line["images"]}
