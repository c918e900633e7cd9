"""Everything worth knowing of one GPU, in one call of a few minutes.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --json gpu.json --rehearse   # the same on a CPU, tiny: no result, but no surprise either

benchmarks/gpu.sh runs the GPU tests besides and writes a table. What is measured, each in a process of its own, so that
one that fails or runs out of memory or time takes nothing with it:

- *ceilings*: square matrix products in each number format, and a copy from device memory to device memory;
- *speed*: the trainer's own step (plan, images held on the device, phases, optimizers, EMA, meter) in images a second
  by batch and number format, with losses, peak memory, floating-point operations, the host's share of a step's time and
  the places where it waits for the device. Modes: off, compiled (default) or as graphs as by ``train.compile``; search:
  cuDNN tries its algorithms; recompute: ``train.activation_checkpointing``;
- *memory*: what colordist/training/memory.py expects a step to need;
- *kernels*: how long the device is busy in a step, how many kernels are launched, which are the slowest;
- *bare*: the trainer and a bare loop in turns (benchmarks/step.py).

Blocks of steps are timed on the host's clock, from device idle to device idle, after a warm-up: median and range.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
LEAST = 15.0  # seconds that any part needs
NO_LOSSES = ("skipped", "sync_bytes", "accuracy_real", "accuracy_fake", "gradient_norm", "loss_scale")
WHOLE = {"train.micro_batch_size": None, "train.activation_checkpointing": False}  # what memory allows is to be seen
TINY = {"model.width": 4, "model.depth": 2, "discriminator.width": 4, "discriminator.depth": 2, "data.image_size": 32}
TINY |= {"train.global_batch_size": 4}
SCENES = 64

Job = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Something to measure."""

    name: str
    job: Job
    limit: float
    """Seconds after which it is given up."""


def parts(painted: Path, *, rehearse: bool) -> list[Part]:
    """What is measured, what matters most first."""
    cgan: Job = {"name": "cgan", "config": str(ROOT / "configs" / "cgan.yaml"), "painted": str(painted)}
    # Networks that fill a GPU.
    wide: Job = cgan | {"name": "cgan256", "config": str(ROOT / "configs" / "cgan256.yaml"), "settings": WHOLE}
    by_batch: Job = {"batch": 64, "batches": [64, 256, 1024, 4096], "seconds": 0.4, "blocks": 5}
    wide_by_batch: Job = {"batch": 32, "batches": [32, 16, 64, 128], "seconds": 0.4, "blocks": 3}
    oracle: Job = {"size": 8192, "bytes": 2**31, "rounds": 7}
    turns: Job = {"rounds": 8, "steps": 25}
    if rehearse:
        cgan, wide = cgan | {"settings": TINY}, wide | {"settings": WHOLE | TINY}
        by_batch = wide_by_batch = {"batch": 2, "batches": [2, 3, 4], "seconds": 0.01, "blocks": 3}
        oracle, turns = {"size": 64, "bytes": 2**16, "rounds": 3}, {"rounds": 2, "steps": 2}

    def part(what: str, config: Job, more: Job, precision: str = "bf16", mode: str = "off", limit: float = 60) -> Part:
        job = {"what": what, "precision": precision, "mode": mode} | config | more
        return Part(f"{what}/{config['name']}/{precision}/{mode}", job, limit)

    few = by_batch | {"batches": by_batch["batches"][:3:2]}
    one, wide_one = ({**each, "batches": [each["batch"]]} for each in (by_batch, wide_by_batch))
    large = cgan | {"name": "cgan-large", "settings": {"train.global_batch_size": 1024} | cgan.get("settings", {})}
    return [
        Part("hardware", {"what": "hardware"}, 60),
        Part("ceilings", {"what": "ceilings"} | oracle, 60),
        part("speed", cgan, by_batch | {"flops": True}, "fp32"),
        part("speed", cgan, by_batch),
        part("speed", cgan, one, mode="graphs", limit=120),
        part("speed", cgan, one, mode="default", limit=100),
        part("kernels", cgan, one),
        part("speed", wide, wide_by_batch | {"flops": True}, "fp32", limit=75),
        part("speed", wide, wide_by_batch),
        part("kernels", wide, wide_one),
        part("bare", cgan, turns),
        part("kernels", cgan, one, mode="graphs"),
        part("speed", cgan, by_batch, "fp16"),
        part("speed", cgan, by_batch, "tf32"),
        part("memory", cgan, by_batch, limit=30),
        part("memory", wide, wide_by_batch, limit=30),
        part("speed", cgan, few, mode="search"),
        part("speed", wide, wide_one, mode="search"),
        part("speed", wide, wide_one, mode="recompute"),
        part("speed", wide, wide_one, mode="default", limit=100),
        part("bare", large, turns),
        part("speed", wide, wide_by_batch, "tf32"),
        part("speed", wide, wide_by_batch, "fp16"),
    ]


# --- one part


def measure(part: Part, seconds: float, folder: Path, *, gpu: bool) -> dict[str, Any]:
    """What a part finds, or why it found nothing."""
    file, out = folder / "job.json", folder / "found.json"
    out.unlink(missing_ok=True)
    file.write_text(json.dumps(part.job))
    command = [sys.executable, __file__, "--work", str(file), str(out)]
    if not gpu and (part.job.get("precision") == "fp16" or part.job.get("mode") == "graphs"):
        return {"skipped": "needs a GPU"}
    begun = time.perf_counter()
    failed = run(command, min(part.limit, seconds), folder)
    found = {"failed": failed} if failed else json.loads(out.read_text())
    return found | {"seconds": round(time.perf_counter() - begun, 1)}


def run(command: list[str], seconds: float, folder: Path) -> str | None:
    """Run a command, with all that it starts. Returns why it failed; None if it didn't."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    log, compiled = folder / "log", folder / "compiled"
    with log.open("w") as file:
        environment = os.environ | {"PYTHONPATH": path, "KINETO_LOG_LEVEL": "99"}
        environment |= {"TORCHINDUCTOR_CACHE_DIR": str(compiled)}
        # A session of its own, to be ended as a whole: compilers leave helpers behind.
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        finally:
            late = process.poll() is None
            if late:
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    if code == 0:
        return None
    if late:
        shutil.rmtree(compiled, ignore_errors=True)  # there may be half of a file in it
        return f"not done after {seconds:.0f} s"
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {said[-1] if said else 'it said nothing'}"[:500]


def work(file: Path, out: Path) -> None:
    """What the process of a part does."""
    from gpu_work import WORK

    job = json.loads(file.read_text())
    out.write_text(json.dumps(WORK[job["what"]](job)))


# --- all of them


def compare(parts: dict[str, dict[str, Any]]) -> None:
    """Add to what was found what only several parts together tell: shares of the ceiling, and losses beside fp32's."""
    oracle = parts.get("ceilings", {}).get("tflops", {})
    for name, found in parts.items():
        if not name.startswith("speed/") or "losses" not in found:
            continue
        _, config, precision, _ = name.split("/")
        exact = parts.get(f"speed/{config}/fp32/off", {})
        as_wide_as = {"tf32": "fp32", "fp16": "bf16"}.get(precision, precision)
        expected = parts.get(f"memory/{config}/bf16/off", {}).get("expected_mb", {}).get(as_wide_as, {})
        losses = {key: each for key, each in found["losses"].items() if not key.endswith(NO_LOSSES)}
        found["finite"] = all(map(math.isfinite, losses.values()))
        if "losses" in exact:
            found["off_fp32"] = max(abs(each / exact["losses"][key] - 1) for key, each in losses.items())
        for each in found["batches"]:
            if "resident_mb" in each and str(each["batch"]) in expected:
                each["expected_memory_mb"] = expected[str(each["batch"])] + each["resident_mb"]
            if "images_per_second" in each and "flops_per_image" in exact:
                each["tflops"] = each["images_per_second"]["median"] * exact["flops_per_image"] / 1e12
                if precision in oracle:
                    each["share_of_ceiling"] = each["tflops"] / oracle[precision]["median"]


def paint(file: Path, *, rehearse: bool) -> None:
    """A few scenes for all to learn from: uint8 [n, 32, 32, 3]."""
    from colordist.data.sources.synthetic import synthetic

    count = 4 if rehearse else SCENES
    scenes = synthetic(0, 32, count, 1).train
    np.save(file, np.stack([scenes[index] for index in range(count)]))


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=6.0, help="begin nothing that could take longer")
    parser.add_argument("--rehearse", action="store_true", help="tiny, and without a GPU if there is none")
    parser.add_argument("--only", default="", metavar="PREFIX", help="parts whose name begins so, e.g. speed/cgan/bf16")
    parser.add_argument("--work", type=Path, nargs=2, metavar=("JOB", "FOUND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return 0
    gpu = has_gpu()
    if not options.rehearse and not gpu:
        print("gpu.py: torch sees no GPU here; --rehearse shows what would be measured", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, too
    begun = time.perf_counter()
    found: dict[str, Any] = {"rehearsal": options.rehearse, "parts": {}}
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        painted = Path(name) / "painted.npy"
        paint(painted, rehearse=options.rehearse)
        for part in (each for each in parts(painted, rehearse=options.rehearse) if each.name.startswith(options.only)):
            left = 60 * options.minutes - (time.perf_counter() - begun)
            told = measure(part, left, Path(name), gpu=gpu) if left > LEAST else {"skipped": "no time was left"}
            found["parts"][part.name] = told
            compare(found["parts"])
            print(f"{part.name}: {told.get('failed') or told.get('skipped') or 'done'}", end="", flush=True)
            print(f" ({told['seconds']} s)" if "seconds" in told else "", flush=True)
            if options.json:  # after each part: whatever happens next, this is there
                options.json.write_text(json.dumps(found | {"seconds": time.perf_counter() - begun}, indent=2) + "\n")
    return 1 if any("failed" in each for each in found["parts"].values()) else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
