"""The benchmarks on one GPU, in a few minutes: the most important first, each with a time limit.

    python benchmarks/gpu.py runs/gpu
    python benchmarks/gpu.py runs/gpu --rehearse   # the same on a CPU, with tiny networks: to test the script

Writes a JSON file for each into the folder, and gpu.md with their output. benchmarks/gpu.sh runs the GPU tests, too.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LEAST = 15.0  # seconds that every part needs
SMALL = ["model.width=4", "discriminator.width=4", "discriminator.depth=2", "train.global_batch_size=4"]
SMALL += ["data.train_images=8"]
TINY = [*SMALL, "model.depth=2", "data.image_size=32"]
CHOICES = ["bf16", "TF32", "fp16", "cuDNN search", "activation checkpointing"]
COMPILED = ["compiled", "CUDA graphs"]
UNDONE = ["not channels_last", "foreach Adam", "generator run in each phase", "discriminator not frozen"]
WIDE = ["--config", "configs/photos_cgan.yaml"]
# Networks that fill a GPU, without pretrained weights; few images, as all arms hold them at once.
WHOLE = ["model.encoder=convnext_tiny", "model.weights=none", "task.feature_weight=0", "model.width=64"]
WHOLE += ["discriminator.width=64", "data.image_size=256", "train.global_batch_size=8", "data.train_images=32"]
TINY_WHOLE = [*SMALL, "model.encoder=test_efficientnet", "data.image_size=64"]


class Part(NamedTuple):
    """A benchmark to run. command: script and arguments; limit: in seconds."""

    name: str
    command: list[str]
    limit: float


def parts(*, rehearse: bool) -> list[Part]:
    """All parts, the most important first."""
    few, tiny = (["--rounds", "1"], TINY) if rehearse else (["--rounds", "8"], [])
    blocks, batches, wide_batches = ["--steps", "25"], ["64", "256", "1024", "4096"], ["16", "32", "64", "128"]
    speed, arms, undone, compiled = [], CHOICES, UNDONE, COMPILED
    tiny_whole: list[str] = []
    if rehearse:
        blocks, batches, wide_batches, arms, undone = ["--steps", "2"], ["2", "4"], ["2"], ["bf16"], UNDONE[:1]
        compiled, tiny_whole = [], TINY_WHOLE
        speed = ["--seconds", "0.01", "--matrix", "64", "--precisions", "bf16"]
    large = [] if rehearse else ["train.global_batch_size=1024"]
    cases = ["quickstart"] if rehearse else ["cgan", "cgan, bf16", "photos, 256x256"]
    one = ["--processes", "1", *few, *blocks]
    bf16 = ["--set", "train.precision=bf16", *tiny]
    return [
        Part("step", ["step.py", *one, *bf16], 60),
        Part("speed", ["speed.py", *speed, *few, "--batches", *batches, "--set", *tiny], 120),
        Part("step, 1024 images", ["step.py", *one, *bf16, *large], 60),
        Part("choices", ["choices.py", *one, "--arms", *arms, *compiled, "--set", *tiny], 240),
        Part("choices, 256x256", ["choices.py", *few, *WIDE, "--arms", *arms, "--set", *WHOLE, *tiny_whole], 180),
        Part(
            "speed, 256x256",
            ["speed.py", *speed, *few, "--configs", WIDE[1], "--batches", *wide_batches, "--set", *WHOLE, *tiny_whole],
            120,
        ),
        Part("memory", ["memory.py", "--cases", *cases], 60),
        Part("choices undone, bf16", ["choices.py", *one, "--arms", *undone, *bf16], 60),
    ]


def run(command: list[str], seconds: float, log: Path) -> str | None:
    """Run a command with its output in a file. Returns why it failed, or None. seconds: after which it is killed."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("w") as file:
        # A session of its own, to be killed as a whole: compilers leave worker processes behind.
        process = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, start_new_session=True
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        finally:
            late = process.poll() is None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    if late:
        return f"not done after {seconds:.0f} s"
    output = log.read_text(errors="replace").split("\n")
    return f"exit code {code}: {[line for line in ['nothing', *output] if line.strip()][-1]}"[:500] if code else None


def hardware() -> str:
    """Versions and GPU."""
    import torch

    found = f"python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,temperature.gpu,power.draw"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
        found += f"\n{query}: {shown}"
    return found


def has_gpu() -> bool:
    """Whether there is one."""
    import torch

    return torch.cuda.is_available()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="FOLDER", help="where to write the results")
    parser.add_argument("--minutes", type=float, default=6.0, help="time limit of all parts")
    parser.add_argument("--rehearse", action="store_true", help="tiny, with or without a GPU")
    parser.add_argument("--only", default="", metavar="PREFIX", help="only parts with this prefix, e.g. choices")
    options = parser.parse_args()
    page = options.out / "gpu.md"
    if not options.rehearse and not has_gpu():
        print("gpu.py: torch sees no GPU here; --rehearse shows what would be measured", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is killed, too
    options.out.mkdir(parents=True, exist_ok=True)
    begun, failures = time.perf_counter(), 0
    title = "# One GPU" + (": a rehearsal, whose numbers mean nothing" if options.rehearse else "")
    page.write_text(f"{title}\n\n## Hardware\n\n{hardware()}\n")
    for part in (each for each in parts(rehearse=options.rehearse) if each.name.startswith(options.only)):
        left = 60 * options.minutes - (time.perf_counter() - begun)
        stem = part.name.replace(", ", "-").replace(" ", "-")
        script, *arguments = part.command
        command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
        command[2:2] = ["--json", str(options.out / f"{stem}.json")]
        log = options.out / f"{stem}.log"
        (options.out / f"{stem}.json").unlink(missing_ok=True)
        failed = "no time left" if left < LEAST else run(command, min(part.limit, left), log)
        failures += failed is not None and left >= LEAST
        output = log.read_text(errors="replace") if failed is None else f"**failed**, see {log.name}: {failed}"
        text = f"`{' '.join(part.command)}`\n\n```\n{output.strip()}\n```" if failed is None else output
        with page.open("a") as file:
            file.write(f"\n## {part.name}\n\n{text}\n")
        print(f"{part.name}: {failed or 'done'}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
