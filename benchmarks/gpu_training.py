"""Training for gpu.py: the trainer's own loop between two lines of the log, on images that are held on the device.

Plan, resident images, phases, optimizers, averaged weights, meter: all but signals, evaluation and checkpoints.
"""

import dataclasses
import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
import yaml
from measuring import summary
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from colordist.color import ColorSpace
from colordist.config import Config
from colordist.data.loader import ResidentLoader, Share
from colordist.data.sampler import Sampler
from colordist.engine.runtime import Engine
from colordist.training.build_task import build_networks, build_task
from colordist.training.meter import Meter

Job = dict[str, Any]

IMAGES = 8192  # held on the device
WARM_UP = 4  # steps
LOSS_STEPS = 30
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
SYNCHRONIZED = "called a synchronizing CUDA operation"  # as torch says it


def read(file: str, settings: dict[str, Any]) -> Config:
    """A config without the command line's parser: a YAML file, then settings by dotted key."""
    return changed(changed(Config(), yaml.safe_load(Path(file).read_text())), nested(settings))  # type: ignore[no-any-return]


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """``{"train.steps": 5}`` to ``{"train": {"steps": 5}}``."""
    sections: dict[str, Any] = {}
    for key, value in settings.items():
        *path, name = key.split(".")
        section = sections
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return sections


def changed(section: Any, values: dict[str, Any]) -> Any:  # noqa: ANN401  any section of a config
    """The same settings but for these."""
    hints = get_type_hints(type(section))
    new = {
        key: changed(getattr(section, key), value) if dataclasses.is_dataclass(hints[key]) else value
        for key, value in values.items()
    }
    return dataclasses.replace(section, **new)


@dataclass
class Training:
    """A task that is trained, a few steps at a time."""

    config: Config
    painted: NDArray[np.uint8]
    """Some images: [n, 32, 32, 3]."""

    def __post_init__(self) -> None:
        train = self.config.train
        self.engine = Engine(train.precision, tf32=train.tf32, compiled=train.compile)
        self.device = self.engine.device
        self.task = build_task(self.config)
        self.engine.prepare(self.task, build_networks(self.task, self.config))
        self.images = self._resident()
        self.at = self.config.loss.warmup_steps  # from here on all networks learn
        self.use(train.global_batch_size)

    def _resident(self) -> Tensor:
        """The images over and over, enlarged to the config's size: uint8 [IMAGES, 3, H, W] on the device."""
        few = torch.from_numpy(self.painted).permute(0, 3, 1, 2).to(self.device)
        times = -(-self.config.data.image_size // few.shape[-1])
        few = few.repeat_interleave(times, 2).repeat_interleave(times, 3)
        few = few[..., : self.config.data.image_size, : self.config.data.image_size]
        return few.repeat(-(-IMAGES // len(few)), 1, 1, 1).contiguous()

    def use(self, batch: int) -> None:
        """Go on with another global batch."""
        config = self.config
        noise, unpaired = (config.loss.candidates, config.model.noise), config.task == "cyclegan"
        sampler = Sampler(config.seed, len(self.images), batch, config.data.flip, noise=noise, unpaired=unpaired)
        color_space = ColorSpace(config.model.color_space)
        share = Share(sampler, color_space, self.device, self.engine.dtype, config.train.micro_batch_size, 0, 1)
        self.loader, self.meter = ResidentLoader(self.images, share), Meter(batch)

    def step(self) -> None:
        """One step of the trainer's loop."""
        with self.meter.waiting():
            batches = self.loader.micro_batches(self.at)
        self.meter.add(self.engine.step(self.task, batches, self.at))
        self.at += 1

    def block(self, steps: int) -> tuple[dict[str, float], dict[str, float]]:
        """Some steps and what the log says of them: means, and the pace. Ends when the device has done them."""
        self.meter.restart_clock()
        for _ in range(steps):
            self.step()
        return self.meter.finish_interval(self.engine)


def training(job: Job) -> Training:
    """The training that a job asks for. job: ``config``, ``settings``, ``precision``, ``mode``, ``painted``."""
    precision, mode = job["precision"], job["mode"]
    settings = job.get("settings", {}) | {"train.steps": 10**6, "train.tf32": precision == "tf32"}
    settings |= {"train.precision": "fp32" if precision == "tf32" else precision}
    torch.backends.cudnn.benchmark = mode == "search"
    if mode in ("default", "graphs"):
        settings["train.compile"] = mode
    if mode == "recompute":
        settings["train.activation_checkpointing"] = True
    return Training(read(job["config"], settings), np.load(job["painted"]))


def speed(job: Job) -> dict[str, Any]:
    """How fast a config learns. job: as for ``training``, with ``batch``, and ``batches``, ``seconds`` and ``blocks``.

    Losses, operations and waits are those at ``batch``.
    """
    run, first = training(job), job["batch"]
    run.use(first)
    begun = time.perf_counter()
    run.block(1)
    # Libraries are loaded in it, and code is compiled.
    found: dict[str, Any] = {"batch": first, "seconds_of_first_step": time.perf_counter() - begun, "batches": []}
    found["losses"], _ = run.block(LOSS_STEPS)
    if job.get("flops"):
        with FlopCounterMode(display=False) as counter:
            run.block(1)
        found["flops_per_image"] = counter.get_total_flops() / first
    found["waits"] = waits(run) if run.device.type == "cuda" else "no GPU, so none to wait for"
    for batch in job["batches"]:
        try:
            found["batches"].append({"batch": batch} | pace(run, batch, job["seconds"], job["blocks"]))
        except torch.OutOfMemoryError as error:
            found["batches"].append({"batch": batch, "failed": str(error).splitlines()[0]})
            break
    return found


def pace(run: Training, batch: int, seconds: float, blocks: int) -> dict[str, Any]:
    """Images a second and memory at one batch size."""
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(run.device)
    if batch != run.meter.global_batch_size:
        torch.compiler.reset()  # code for this batch alone, as a training has it
    run.use(batch)
    run.block(WARM_UP)
    _, trial = run.block(2)
    steps = round(min(200, max(2, seconds * trial["images_per_second"] / batch)))
    paces = [run.block(steps)[1] for _ in range(blocks)]
    rates = [each["images_per_second"] for each in paces]
    return {
        "steps_a_block": steps,
        "images_per_second": summary(rates),
        "step_ms": summary([1000 * batch / rate for rate in rates]),
        "waiting_for_data": statistics.median(each["waiting_for_data"] for each in paces),
        "host_share": host_share(run),
        "peak_memory_mb": run.engine.peak_memory(),
        "resident_mb": run.images.nbytes / 1e6,
    }


def host_share(run: Training) -> float:
    """How much of a step's time the host takes to hand it out: 1 where one of the two waits for the other."""
    shares = []
    for _ in range(5):
        synchronize(run.device)
        start = time.perf_counter()
        run.step()
        handed_out = time.perf_counter()
        synchronize(run.device)
        shares.append((handed_out - start) / (time.perf_counter() - start))
    return statistics.median(shares)


def waits(run: Training) -> dict[str, Any]:
    """Where the host waits for the device within five steps, as far as torch knows."""
    steps = 5
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(steps):
                run.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [each for each in caught if SYNCHRONIZED in str(each.message)]
    where = sorted({f"{Path(each.filename).name}:{each.lineno}" for each in found})
    return {"a_step": len(found) / steps, "where": where}


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- kernels


def kernels(job: Job) -> dict[str, Any]:
    """What a step consists of on the device. job: as for ``training``, and ``batch``."""
    run = training(job)
    run.use(job["batch"])
    run.block(WARM_UP)
    run.block(WARM_UP)
    steps = 4
    _, alone = run.block(steps)
    cuda = run.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            run.step()
        synchronize(run.device)
    events = profiler.key_averages()
    on_device = [each for each in events if each.device_type.name == "CUDA" and not each.is_user_annotation]
    if cuda:
        times = {each.key: (float(each.self_device_time_total), each.count) for each in on_device}
    else:
        times = {each.key: (float(each.self_cpu_time_total), each.count) for each in events}
    stall_exempt = sum(microseconds for microseconds, _ in times.values()) / steps
    step = 1e6 * job["batch"] / alone["images_per_second"]
    slowest = sorted(times.items(), key=lambda each: -each[1][0])[:10]
    return {
        "batch": job["batch"],
        "step_us": step,  # without the profiler
        "busy_share": stall_exempt / step,
        "launches_a_step": sum(each.count for each in events if each.key in LAUNCHES) / steps,
        "waits": sum(each.count for each in events if each.key in WAITS),  # of all steps; one or two are ours
        "slowest": [
            {
                "name": name,
                "us_a_step": total / steps,
                "calls_a_step": count / steps,
                "share": total / steps / stall_exempt,
            }
            for name, (total, count) in slowest
        ],
    }
