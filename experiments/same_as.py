"""Whether two commits train to the same bits: digests of losses, scores and weights side by side.

``python experiments/same_as.py 1291670 HEAD --baseline baseline.json``

Each commit is unpacked into a temporary folder and trains each case for a few steps on the CPU: fp32, deterministic,
one thread per process. Configs that need a download learn from images painted here instead. Exit code 1 if any digest
differs or any run fails.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
CASES = (
    *("quickstart_ae", "quickstart_cgan", "ae", "cgan", "cyclegan", "variants"),
    *("ladder/10-augment", "ladder/11-backbone", "ladder/12-relativistic"),
)
CLASS = "horse"  # the class that the configs name
COMPARED = ("losses", "scores", "snapshot", "checkpoint")
INFORMATIVE = ("loss names",)  # may change without the numbers changing

Digests = dict[str, str]


# Training


def unpack(commit: str, folder: Path) -> None:
    """Put a commit's files into a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def paint(folder: Path) -> str:
    """Write PNG images of smooth colours in the layout of the source `folder`. Returns a digest of all pixels."""
    random, digest = np.random.default_rng(0), hashlib.sha256()
    for split, count in (("train", 256), ("test", 64)):
        target = folder / split / CLASS
        target.mkdir(parents=True)
        for number in range(count):
            coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            fine = np.kron(coarse, np.ones((8, 8, 1), np.uint8)) // 2 + np.kron(coarse[::-1], np.ones((8, 8, 1))) // 4
            pixels = (fine + random.integers(0, 32, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(target / f"{number:04}.png")
            digest.update(pixels.tobytes())
    return digest.hexdigest()[:16]


def overrides(config: Path, run: Path, images: Path, steps: int) -> list[str]:
    """Options that shorten a config, in the dialect of the commit that it belongs to."""
    settings: dict[str, Any] = yaml.safe_load(config.read_text())
    options = {
        "run.dir": run,
        "train.steps": steps,
        "train.precision": "fp32",
        "train.deterministic": "true",
        "log.every": 1,
        "evaluate.every": steps,
        "checkpoint.every": steps,
    }
    section = "task" if isinstance(settings["task"], dict) else "loss"  # since version 0.2: the task's own settings
    if settings[section].get("warmup_steps", 0) >= steps // 4:  # so that the discriminator trains, too
        options[f"{section}.warmup_steps"] = steps // 4
    if settings["data"]["source"] != "synthetic":
        options |= {"data.source": "folder", "data.root": images}
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def train(checkout: Path, case: str, processes: int, images: Path, steps: int) -> Digests:
    """Train one case of one commit. Raises RuntimeError with the last lines that a failed run wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        run, config = Path(scratch) / "run", checkout / "configs" / f"{case}.yaml"
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        command = [sys.executable, *(launcher if processes > 1 else ()), "-m", "colordist.train"]
        done = subprocess.run(
            [*command, "--config", str(config), *overrides(config, run, images, steps)],
            cwd=checkout,
            env=environment(checkout, Path(scratch) / "cache"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError("\n".join(done.stdout.splitlines()[-15:]))
        return read_digests(run)


def environment(checkout: Path, cache: Path) -> dict[str, str]:
    """The checkout's own code, one thread per process, no GPU, nothing that a launcher or an earlier run left."""
    left = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "ACCELERATE_", "TORCHELASTIC_", "PET_", "SLURM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    return kept | threads | {"PYTHONPATH": str(checkout), "CUDA_VISIBLE_DEVICES": "", "XDG_CACHE_HOME": str(cache)}


# Digests: of values, not of their names or of their order, which a commit may change


def read_digests(run: Path) -> Digests:
    """What a run has logged and saved, each as 16 hexadecimal digits."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    training = [record for record in records if any(key.endswith("/lr") for key in record)]
    scores = [record for record in records if record not in training and record["step"] > 0]
    checkpoint = sorted((run / "checkpoints").glob("step-*[0-9]"))[-1]
    return {
        "losses": digest(f"{record['step']} {value!r}" for record in training for _, value in measured(record)),
        "scores": digest(f"{record['step']} {value!r}" for record in scores for _, value in measured(record)),
        "snapshot": digest(tensor_digests(run / "snapshots" / "latest")),
        "checkpoint": digest(tensor_digests(checkpoint)),
        "loss names": digest({key for record in training for key, _ in measured(record)}),
    }


def measured(record: dict[str, float]) -> list[tuple[str, float]]:
    """Losses, rates and scores; pace, memory and traffic are ``pace/NAME``, in version 0.1 names without a slash."""
    return [(key, value) for key, value in record.items() if "/" in key and not key.startswith("pace/")]


def tensor_digests(folder: Path) -> list[str]:
    """One digest for each tensor with dimensions in a snapshot or checkpoint: shape, type and bytes."""
    found: list[str] = []
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            state: object = load_file(file)
        elif file.suffix == ".pt":
            state = torch.load(file, map_location="cpu", weights_only=True)
        else:
            continue
        for tensor in tensors(state):
            values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found.append(f"{tuple(tensor.shape)} {tensor.dtype} {hashlib.sha256(values).hexdigest()}")
    if not found:
        raise RuntimeError(f"no tensors in {folder}")
    return found


def tensors(state: object) -> list[torch.Tensor]:
    """All floating-point tensors with at least one dimension in nested containers: weights, averages and moments."""
    if isinstance(state, torch.Tensor):
        return [state.detach()] if state.ndim and state.is_floating_point() and state.numel() else []
    if isinstance(state, dict | list | tuple):
        values = state.values() if isinstance(state, dict) else state
        return [tensor for value in values for tensor in tensors(value)]
    return []


def digest(lines: Iterable[str]) -> str:
    """Of a multiset of lines."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


# Comparison


class Baseline:
    """Digests of a commit, kept in a file so that it need not train again."""

    def __init__(self, file: Path | None, commit: str, conditions: dict[str, Any]) -> None:
        self._file = file
        self._content: dict[str, Any] = {"commit": commit, "conditions": conditions, "digests": {}}
        if file is not None and file.exists():
            kept = json.loads(file.read_text())
            for key in ("commit", "conditions"):
                if kept[key] != self._content[key]:
                    sys.exit(f"{file} has {key} {kept[key]}, but this is {self._content[key]}: name another --baseline")
            self._content = kept

    def get(self, key: str) -> Digests | None:
        """The digests of a case, if known."""
        found: Digests | None = self._content["digests"].get(key)
        return found

    def put(self, key: str, digests: Digests) -> None:
        """Keep the digests of a case, at once."""
        self._content["digests"][key] = digests
        if self._file is not None:
            self._file.write_text(json.dumps(self._content, indent=2) + "\n")


def compare(old: Digests, new: Digests, label: str) -> bool:
    """Print both side by side. Returns whether all that is compared agrees."""
    for name in (*COMPARED, *INFORMATIVE):
        remark = "same" if old[name] == new[name] else "DIFFERS" if name in COMPARED else "renamed"
        print(f"{label:32} {name:12} {old[name]} {new[name]} {remark}", flush=True)
    return all(old[name] == new[name] for name in COMPARED)


def revision(name: str) -> str:
    """The full hash of a commit."""
    command = ["git", "rev-parse", "--verify", f"{name}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> None:
    """Train all cases of both commits and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="commit to compare with")
    parser.add_argument(
        "new", nargs="?", default="HEAD", help="commit to be compared; uncommitted changes have no part"
    )
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2], help="numbers of processes")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--baseline", type=Path, help="JSON file that keeps the old commit's digests")
    parser.add_argument("--json", type=Path, help="file for all digests of both commits")
    options = parser.parse_args()
    old, new = revision(options.old), revision(options.new)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkouts, images = {commit: Path(scratch) / commit for commit in (old, new)}, Path(scratch) / "images"
        for commit, checkout in checkouts.items():
            unpack(commit, checkout)
        conditions = {"steps": options.steps, "images": paint(images), "torch": torch.__version__}
        machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"  # which kernels run
        baseline = Baseline(options.baseline, old, conditions | {"machine": machine})
        print(f"{'':32} {'':12} {old[:16]} {new[:16]}", flush=True)
        for case in options.cases:
            for processes in options.processes:
                label = f"{case}, {processes} process{'es' if processes > 1 else ''}"
                try:
                    kept = baseline.get(label) or train(checkouts[old], case, processes, images, options.steps)
                    baseline.put(label, kept)
                    fresh = train(checkouts[new], case, processes, images, options.steps)
                except RuntimeError as error:
                    print(f"{label:32} FAILED\n{error}", flush=True)
                    results[label] = {"same": False, "error": str(error)}
                else:
                    results[label] = {"same": compare(kept, fresh, label), "old": kept, "new": fresh}
    if options.json:
        options.json.write_text(json.dumps({"old": old, "new": new, "cases": results}, indent=2) + "\n")
    same = sum(result["same"] for result in results.values())
    print(f"{same} of {len(results)} the same to the bit")
    sys.exit(same < len(results))


if __name__ == "__main__":
    main()
