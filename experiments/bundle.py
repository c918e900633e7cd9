"""Bundles a run's newest snapshot with colordist: its weights in half precision, and a card that gives credit.

    python experiments/bundle.py runs/photos photos-small --credit credit.md

Writes colordist/bundled/NAME with model.safetensors, model.json and README.md: the run's own card, then the credit. The
answers of the bundled model are compared with those of the snapshot: the largest difference of a or b is printed.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load, save

from colordist.color import AB_SCALE
from colordist.run import snapshot
from colordist.run.snapshot import Snapshot

LIMIT = 10e6  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, or a snapshot's")
    parser.add_argument("name", help="of the bundled model")
    parser.add_argument("--credit", type=Path, required=True, help="Markdown: data, licences, what it can't do")
    options = parser.parse_args()
    source, target = snapshot.find(options.run), snapshot.BUNDLED / options.name
    bundle(source, target, options.credit.read_text())
    size = sum(file.stat().st_size for file in target.iterdir())
    print(f"{target}: {size / 1e6:.1f} MB, a and b differ by at most {difference(source, target):.3f}")
    if size > LIMIT:
        raise SystemExit(f"more than {LIMIT / 1e6:.0f} MB")


def bundle(source: Path, target: Path, credit: str) -> None:
    """Write a snapshot in half precision. Raises SystemExit for weights beyond its range."""
    tensors = load((source / "model.safetensors").read_bytes())
    half = {name: each.half() if each.is_floating_point() else each for name, each in tensors.items()}
    beyond = [name for name, each in half.items() if not each.isfinite().all()]
    if beyond:
        raise SystemExit(f"beyond the range of half precision: {', '.join(beyond)}")
    weights = save(half)
    about = json.loads((source / "model.json").read_text())
    about["sha256"] = hashlib.sha256(weights).hexdigest()
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.safetensors").write_bytes(weights)
    (target / "model.json").write_text(json.dumps(about, indent=2) + "\n")
    card = (source / "README.md").read_text().replace("FOLDER_OF_THIS_FILE", target.name)
    (target / "README.md").write_text(f"{card.rstrip()}\n\n{credit.strip()}\n")


@torch.no_grad()
def difference(source: Path, target: Path) -> float:
    """Largest difference of a or b between two snapshots, on random grey images."""
    one, other = snapshot.read(source), snapshot.read(target)
    size = int(one.about["image_size"])
    smooth = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = torch.nn.functional.interpolate(smooth, (size, size), mode="bicubic").clamp(-1, 1)
    return float((colors(one, grey) - colors(other, grey)).abs().max())


def colors(trained: Snapshot, grey: torch.Tensor) -> torch.Tensor:
    """Lab a,b of grey images: [B, 2, H, W]."""
    return trained.sample(grey) * AB_SCALE


if __name__ == "__main__":
    main()
