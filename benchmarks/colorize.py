"""Time and memory of colourizing a photo, with guided and with bilinear upsampling.

    python benchmarks/colorize.py runs/photos --json colorize.json

The photo is one of scikit-image's, enlarged. Each round runs both methods in turn, each in a fresh process. *seconds*:
CPU time of the second of two photos, from the decoded photo to the result. *memory*: MiB of the process's largest
resident set.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import skimage.data
from harness import arguments, as_text, finish, ratio, summary
from PIL import Image

import colordist

METHODS = ("guided", "bilinear")
MIB = 2**20


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("run", help="run folder")
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)  # of a fresh process
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options.run, options.method, options.megapixels)))
        return
    values: dict[str, dict[str, list[float]]] = {key: {name: [] for name in METHODS} for key in ("seconds", "memory")}
    for number in range(options.rounds):
        for method in METHODS[:: 1 if number % 2 == 0 else -1]:
            command = [sys.executable, __file__, *sys.argv[1:], "--method", method]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for key, value in found.items():
                values[key][method].append(value)
    results = {key: {name: summary(each) for name, each in found.items()} for key, found in values.items()}
    for key, found in values.items():
        results[key]["ratio"] = ratio(found, *METHODS)
        for name, row in results[key].items():
            print(f"{key:8} {name:9} {as_text(row)}")
    finish(options, {"megapixels": options.megapixels} | results)


def measure(run: str, method: str, megapixels: float) -> dict[str, float]:
    """CPU seconds of a photo, and MiB of this process."""
    colorizer = colordist.load(run, upsample=method)
    with Image.open(Path(skimage.data.__file__).parent / "coffee.png") as image:
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        photo = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    colorizer(photo)
    start = time.process_time()
    colorizer(photo)
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "memory": memory / MIB}


if __name__ == "__main__":
    main()
