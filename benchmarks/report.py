"""How long the report of 12 runs of 10,000 records each takes to write, and to open in a browser.

    python benchmarks/report.py --json report.json

The runs are made up: noise in metrics.jsonl, noise in the sample grids, twelve different settings. *Open* is the time
from asking for the file until the page is complete and nothing is left to be drawn, all charts included, by the
browser's own clock; *shown* that until text and tables are there. Each opening is a new page of one Chromium; the first
one, which finds nothing cached, is told besides. Goal: open in 3 s.
"""

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from harness import Found, arguments, finish, summary, told
from PIL import Image
from playwright.sync_api import sync_playwright

from colordist.config import Config
from colordist.metrics import METRICS
from colordist.metrics.baselines import REFERENCES
from colordist.reporting.comparison import compare
from colordist.reporting.html import page
from colordist.run.folder import RunFolder

GOAL = 3.0  # seconds
BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def main() -> None:
    parser = arguments(__doc__, 15)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--records", type=int, default=10_000, help="records of each run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs = [make_run(folder / f"run-{number}", number, options.records) for number in range(options.runs)]
        start = time.perf_counter()
        text = page(compare(runs))
        written = time.perf_counter() - start
        file = folder / "report.html"
        file.write_text(text)
        size = file.stat().st_size
        version, timings = measure(file, options.rounds)
    found: Found = {key: summary([timing[key] for timing in timings[1:]]) for key in ("shown", "open")}
    print(f"{options.runs} runs of {options.records:,} records: {size / 1e6:.1f} MB, written in {written:.1f} s")
    for key in ("shown", "open"):
        print(f"{key}: {told(found[key], 2)} s")
    print(f"first open: {timings[0]['open']:.2f} s; goal {GOAL} s")
    found |= {"runs": options.runs, "records": options.records, "bytes": size, "write_seconds": written}
    finish(options, found | {"first_open": timings[0]["open"], "goal": GOAL, "chromium": version})


def make_run(path: Path, number: int, records: int) -> RunFolder:
    """A run folder of noise, with a cGAN's keys."""
    folder, random = RunFolder(path), np.random.default_rng(number)
    path.mkdir()
    settings = asdict(Config())
    settings["optimizer"]["generator"]["lr"] = 1e-3 + number
    folder.config_file.write_text(yaml.safe_dump(settings))
    keys = ["images_per_second", *(f"generator/{name}" for name in ("l1", "gradient_difference", "adversarial"))]
    keys += ["discriminator/real", "discriminator/fake", "generator/lr", "generator/gradient_norm"]
    noise = random.random((records, len(keys)))
    references = {f"reference/{each.name}/{metric.name}": 20.0 for each in REFERENCES for metric in METRICS}
    lines: list[dict[str, Any]] = [{"step": 0, "images": 0, **references}]
    for place, values in enumerate(noise):
        step = 10 * (place + 1)
        lines.append({"step": step, "images": 16 * step, **dict(zip(keys, values.tolist(), strict=True))})
        if place % 100 == 99:
            scores = {f"scores/{metric.name}": float(random.random() * 10) for metric in METRICS}
            lines.append({"step": step, "images": 16 * step, **scores})
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder.samples.mkdir()
    target = np.random.default_rng(0).integers(0, 256, (32, 16 * 32, 3), dtype=np.uint8)
    answer = random.integers(0, 256, target.shape, dtype=np.uint8)
    Image.fromarray(np.concatenate([target, answer, target])).save(folder.samples / "step-000000.png")
    return folder


def measure(file: Path, repeats: int) -> tuple[str, list[dict[str, float]]]:
    """The browser's version, and seconds for each opening; one more than asked for: the first."""
    browser = next((path for path in BROWSERS if Path(path).exists()), None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        timings = []
        for _ in range(repeats + 1):
            view = chromium.new_page(viewport={"width": 1280, "height": 900})
            view.goto(file.as_uri())
            view.wait_for_selector("html[data-ready]", timeout=120_000)
            shown = view.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            done = float(view.evaluate("document.documentElement.dataset.ready"))
            timings.append({"shown": shown / 1000, "open": done / 1000})
            view.close()
        version = chromium.version
        chromium.close()
    return version, timings


if __name__ == "__main__":
    main()
