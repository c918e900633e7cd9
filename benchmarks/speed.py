"""Training speed on one device: images per second by batch size and precision, compared with the hardware's peak.

    python benchmarks/speed.py --json speed.json
    python benchmarks/speed.py --configs configs/cyclegan.yaml --batches 16 64 --precisions bf16

In a process of its own for each config and precision, the engine takes steps on images that are held on the device.
Blocks of steps are timed, from device idle to device idle. Also, for each batch size:

- *memory*: PyTorch's peak allocation, without the images (MB; on CPUs of the whole process);
- *TFLOP/s*: floating-point operations of a step by its time, and the fraction of the peak that square matrix products
  reach here at the same precision;
- *busy*: the share of a step's time in which the device computes; *host*: in which the host launches. GPUs only.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from harness import ROOT, Processes, Results, arguments, as_text, finish, load, summary, synchronize, timed
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from colordist.config import Config
from colordist.data.loader import ResidentLoader
from colordist.engine.runtime import Engine
from colordist.evaluation.build_source import build_source
from colordist.training.build import build_loader
from colordist.training.build_task import build_networks, build_task

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
IMAGES = 4096  # held on the device: a few, repeated
WARM_UP = 4  # steps


class Bench:
    """Trains a task, batch by batch."""

    def __init__(self, config: Config) -> None:
        self.engine, self.config, self.step = Engine(config.train.precision, tf32=config.train.tf32), config, 0
        self.task = build_task(config)
        self.engine.prepare(self.task, build_networks(self.task, config))
        found = build_loader(config, self.task, build_source(config.data, self.engine), self.engine)
        assert isinstance(found, ResidentLoader)
        images = found.images.repeat(-(-IMAGES // len(found.images)), 1, 1, 1)
        sampler = replace(found.share.sampler, length=len(images))
        self.loader = ResidentLoader(images, replace(found.share, sampler=sampler))

    def advance(self, steps: int) -> None:
        """Take some steps."""
        for _ in range(steps):
            self.engine.step(self.task, self.loader.micro_batches(self.step), self.step)
            self.step += 1

    def use(self, batch: int) -> None:
        """Change the global batch size: one micro-batch."""
        sampler = replace(self.loader.share.sampler, global_batch_size=batch)
        share = replace(self.loader.share, sampler=sampler, micro_batch_size=None)
        self.loader = ResidentLoader(self.loader.images, share)

    def measure(self, batch: int, blocks: int, seconds: float) -> Results:
        """Speed and memory at a batch. seconds: of a block."""
        self.use(batch)
        self.advance(WARM_UP)
        if self.engine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steps = max(1, round(seconds / timed(lambda: self.advance(1))))
        each = [timed(lambda: self.advance(steps)) / steps for _ in range(blocks)]
        peak = self.engine.peak_memory() - self.loader.nbytes / 1e6
        with FlopCounterMode(display=False) as counter:
            self.advance(1)
        return {
            "batch": batch,
            "steps_per_block": steps,
            "images_per_second": summary([batch / one for one in each]),
            "seconds": summary(each),
            "tflops": counter.get_total_flops() / summary(each)["median"] / 1e12,
            "memory_mb": peak,
        } | (self.device_share() if self.engine.device.type == "cuda" else {})

    def device_share(self, steps: int = 4) -> Results:
        """The fractions of a step's time in which the host launches work and in which the device computes."""
        synchronize()
        begin = time.perf_counter()
        self.advance(steps)
        host = time.perf_counter() - begin
        synchronize()
        whole = time.perf_counter() - begin
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            timed(lambda: self.advance(steps))
        on_device = [each for each in profiler.key_averages() if each.device_type.name == "CUDA"]
        busy = 1e-6 * sum(each.self_device_time_total for each in on_device if not each.is_user_annotation)
        return {"host": host / whole, "busy": busy / whole}


def peak(precision: str, size: int, rounds: int = 5, at_once: int = 5) -> dict[str, float]:
    """TFLOP/s of products of random square matrices."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, other = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
    seconds = [timed(lambda: [one @ other for _ in range(at_once)]) / at_once for _ in range(1 + rounds)]
    return summary([2 * size**3 / each / 1e12 for each in seconds[1:]])


def measure(options: argparse.Namespace, precision: str) -> Results:
    """A config at a precision, on this process."""
    settings: dict[str, object] = {"train.tf32": precision == "tf32", "train.activation_checkpointing": False}
    settings |= {"train.precision": "fp32" if precision == "tf32" else precision}
    found: Results = {"peak_tflops": peak(precision, options.matrix), "batches": []}
    bench = Bench(load(options, settings))
    for batch in options.batches:
        try:
            each = bench.measure(batch, options.rounds, options.seconds)
        except torch.OutOfMemoryError as error:
            found["batches"].append({"batch": batch, "failed": str(error).splitlines()[0]})
            break
        each["fraction_of_peak"] = each["tflops"] / found["peak_tflops"]["median"]
        found["batches"].append(each)
    return found


def line(found: Results) -> str:
    """Results of a batch size as text."""
    if "failed" in found:
        return f"{found['batch']:5} {found['failed']}"
    return (
        f"{found['batch']:5} {as_text(found['images_per_second'], 0)} images per second, {found['tflops']:.2f} TFLOP/s "
        f"({found['fraction_of_peak']:.1%}), {found['memory_mb']:.0f} MB"
        + (f", busy {found['busy']:.0%}, host {found['host']:.0%}" if "busy" in found else "")
    )


def main() -> None:
    parser = arguments(__doc__, 5)
    gpu = torch.cuda.is_available()
    parser.add_argument("--configs", type=Path, nargs="+", default=[ROOT / "configs" / "cgan.yaml"])
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=[*DTYPES] if gpu else ["fp32", "bf16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024, 4096] if gpu else [16, 64])
    parser.add_argument("--seconds", type=float, default=0.5, help="of a block")
    parser.add_argument("--matrix", type=int, default=8192 if gpu else 1024, help="rows of the matrix products")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings")
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)  # run as the process of this config
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.config:
        sys.stdin.readline()
        print(json.dumps(measure(options, options.precision)), flush=True)
        return
    found: Results = {"configs": {}}
    for config in options.configs:
        each = found["configs"][config.stem] = {}
        for precision in options.precisions:
            command = [sys.executable, *sys.argv, "--config", str(config), "--precision", precision]
            with Processes(command, 1, {}) as processes:
                each[precision] = processes.ask("")[0]
            print(f"{config.stem}, {precision}:", *map(line, each[precision]["batches"]), sep="\n", flush=True)
    finish(options, found)


if __name__ == "__main__":
    main()
