"""What a GAN's step sends between two processes and what that costs: usual practice and ours, in turns, on CPUs.

    python benchmarks/sync.py --json sync.json
    python benchmarks/sync.py --configs configs/cgan.yaml --rates 1gbit 100mbit --steps 30

*Usual* is what one writes with Accelerate: ``prepare(G, D, optimizer_g, optimizer_d)``, both networks called through
DistributedDataParallel in both turns, the discriminator not frozen in the generator's. *Ours* is ``Engine.step``, which
also measures gradients and keeps the averaged copy. Both get the same networks, losses, optimizers and images (noise),
see real and generated images in one pass, and should get the same weights: how far these differ after 5 steps is told.
Besides the seconds until the slower process is through there are those that both computed (``cpu_seconds``), which
other work on the machine disturbs less.

Two more arms tell how much of the communication is hidden behind backward: *waiting* is ours, but each piece of the
gradient is waited for where it is sent; *silent* is ours with nothing sent. Communication takes ``waiting - silent``,
of which ``waiting - ours`` is hidden.

Each link is a run of its own: first the loopback device as it is; then, for each of ``--rates``, two network namespaces
joined by a veth pair that tc slows down to that rate both ways, with a process in each (Linux, root, iproute2 and
util-linux; skipped with the reason elsewhere). The namespaces have no names, nothing but each other to talk to, and end
with their processes, which end with this one: nothing is left behind, however it ends.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from accelerate import Accelerator
from measuring import end_with_parent, free_port, hardware, summary, wait
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.profiler import ProfilerActivity, profile

from colordist.cli import parse
from colordist.color import ColorSpace
from colordist.config import Config
from colordist.data.loader import Batch
from colordist.data.sampler import UNIFORMS
from colordist.engine.runtime import Engine
from colordist.models.blocks import iterate_spectral_norm
from colordist.tasks.base import Task
from colordist.tasks.losses import cross_entropy, gradient_difference_loss, pixel_distance
from colordist.training.build_task import build_networks, build_task

Step = Callable[[int], object]
"""Trains both networks once, in a step of this number."""

ROOT = Path(__file__).parents[1]
CONFIGS = [ROOT / "configs" / name for name in ("cgan.yaml", "quickstart_cgan.yaml")]
LINK = "link0"
ADDRESSES = "192.0.2.1", "192.0.2.2"  # reserved for documentation, so nobody's
TOOLS = "ip", "tc", "unshare", "nsenter"
WARM_UP = 5  # steps


class Unavailable(Exception):
    """A link that can't be had here, and why."""


# --- the two processes


def work(configs: list[str], steps: int, file: Path) -> None:
    """What each process does; the first one writes what was found."""
    engine = Engine("fp32")  # makes the process group
    found: dict[str, Any] = {"measured_mbit": measure_link(), "configs": {}}
    for name in configs:
        found["configs"][Path(name).stem] = measure(engine, parse(["--config", name]).config, steps)
    found["load"] = os.getloadavg()[0]  # about 2 where nothing else was running
    if engine.is_main:
        file.write_text(json.dumps(found))
    engine.close()


def measure_link() -> float:
    """Megabits per second each way, with both processes sending."""
    payload = torch.zeros(2**20)  # 4 MiB: of which each of two processes sends as much in an all-reduce
    rates = []
    for _ in range(4):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(payload)
        rates.append(payload.numel() * 4 * 8 / (time.perf_counter() - start) / 1e6)
    return statistics.median(rates[1:])


def measure(engine: Engine, config: Config, steps: int) -> dict[str, Any]:
    """All arms in turns, with the networks of one config."""
    usual, usual_task = usual_step(config)
    ours, our_task = our_step(engine, config)
    start = config.loss.warmup_steps  # from here on both networks learn
    for step in range(start, start + WARM_UP):
        usual(step)
        ours(step)
    apart = difference(usual_task, our_task)
    arms: dict[str, Step] = {
        "usual": usual,
        "ours": ours,
        "waiting": with_hook(ours, wait_for(allreduce_hook)),
        "silent": with_hook(ours, send_nothing),
    }
    traffic = {name: count_collectives(arms[name], start + WARM_UP) for name in ("usual", "ours")}
    times: dict[str, list[float]] = {name: [] for name in arms}
    computing: dict[str, list[float]] = {name: [] for name in arms}
    for step in range(start + WARM_UP, start + WARM_UP + steps):
        for name, arm in arms.items():
            took, computed = timed(arm, step)
            times[name].append(took)
            computing[name].append(computed)
    return {
        name: each | {"seconds": summary(times[name]), "cpu_seconds": summary(computing[name])}
        for name, each in traffic.items()
    } | {
        "ratio": summary([u / o for u, o in zip(times["usual"], times["ours"], strict=True)]),
        "overlap": overlap(times),
        "weights_differ_by": apart,
        "global_batch_size": config.train.global_batch_size,
        "parameters": {
            name: sum(each.numel() for each in network.module.parameters())
            for name, network in our_task.networks.items()
        },
    }


def noise(config: Config, step: int) -> Batch:
    """This process's images of a step: noise, the same for all arms."""
    count, size = config.train.global_batch_size // dist.get_world_size(), config.data.image_size
    random = torch.Generator().manual_seed(2 * step + dist.get_rank())
    channels = ColorSpace(config.model.color_space).channels
    grey = torch.rand(count, 1, size, size, generator=random) * 2 - 1
    target = torch.randn(count, channels, size, size, generator=random)
    return Batch(grey, target, torch.zeros(count, UNIFORMS), torch.zeros(count, 0, 0), grey, torch.arange(count))


def our_step(engine: Engine, config: Config) -> tuple[Step, Task]:
    """Our step, and its task."""
    task = build_task(config)
    engine.prepare(task, build_networks(task, config))

    def run(step: int) -> None:
        engine.step(task, [noise(config, step)], step)

    return run, task


def usual_step(config: Config, batches: Callable[[Config, int], Batch] = noise) -> tuple[Step, Task]:
    """The usual step, which returns both losses, and the task whose networks it trains. batches: makes its images."""
    accelerator, task, loss = Accelerator(cpu=True), build_task(config), config.loss
    networks = build_networks(task, config)
    g, d = networks["generator"], networks["discriminator"]
    for module in (g.module, d.module):
        module.to(memory_format=torch.channels_last)
    generator, discriminator, optimizer_g, optimizer_d = accelerator.prepare(
        g.module, d.module, g.optimizer, d.optimizer
    )

    def generator_loss(grey: Tensor, target: Tensor, color: Tensor) -> Tensor:
        total = loss.pixel_weight * pixel_distance(loss.pixel, color, target)
        if loss.gradient_loss_weight:
            total = total + loss.gradient_loss_weight * gradient_difference_loss(loss.pixel, color, target)
        return total + loss.adversarial_weight * cross_entropy(discriminator(grey, color), 1)

    def run(step: int) -> tuple[Tensor, Tensor]:
        batch = batches(config, step)
        grey, target = batch.grey, batch.target
        for network in (g, d):
            for group in network.optimizer.param_groups:
                group["lr"] = network.learning_rate(step)
        color = generator(grey)

        iterate_spectral_norm(d.module)
        seen = torch.cat([target, color.detach()])
        real, fake = discriminator(torch.cat([grey, grey]), seen).chunk(2)
        optimizer_d.zero_grad()
        loss_d = (cross_entropy(real, 1 - loss.label_smoothing) + cross_entropy(fake, 0)) / 2
        accelerator.backward(loss_d)
        optimizer_d.step()

        optimizer_g.zero_grad()
        loss_g = generator_loss(grey, target, color)
        accelerator.backward(loss_g)
        optimizer_g.step()
        return loss_d, loss_g

    return run, task


def wait_for(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A communication hook that returns when its piece of the gradient is there."""

    def hook_and_wait(group: Any, bucket: Any) -> Any:  # noqa: ANN401  torch doesn't export their types
        future = hook(group, bucket)
        future.wait()
        return future

    return hook_and_wait


def send_nothing(group: Any, bucket: Any) -> Any:  # noqa: ANN401
    """A communication hook that leaves every process its own gradient."""
    future: Any = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def with_hook(run: Step, hook: Callable[..., Any]) -> Step:
    """A step of ours in which gradients travel in another way."""

    def run_with_hook(step: int) -> None:
        with patch("colordist.engine.ddp.allreduce_hook", hook):
            run(step)

    return run_with_hook


def timed(run: Step, step: int) -> tuple[float, float]:
    """Seconds until the slower process is through, and seconds that both computed."""
    dist.barrier()
    start, computed = time.perf_counter(), time.process_time()
    run(step)
    took = torch.tensor([time.perf_counter() - start, time.process_time() - computed], dtype=torch.float64)
    each = [torch.empty_like(took) for _ in range(dist.get_world_size())]
    dist.all_gather(each, took)
    return max(float(one[0]) for one in each), sum(float(one[1]) for one in each)


def count_collectives(run: Step, step: int) -> dict[str, Any]:
    """What a step sends, as gloo sees it. No step of ours or theirs all-reduces anything but float32 gradients."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        run(step)
    events = [event for event in profiler.events() or [] if event.name.startswith("gloo:")]
    reduced = [event for event in events if event.name == "gloo:all_reduce"]
    return {
        "gradient_bytes": sum(4 * size for event in reduced for (size,) in event.input_shapes),
        "gradient_all_reduces": len(reduced),
        "other_collectives": len(events) - len(reduced),
    }


def overlap(times: dict[str, list[float]]) -> dict[str, Any]:
    """Seconds of communication and how many of them are hidden; the share is None where noise drowns them."""
    waiting, ours, silent = times["waiting"], times["ours"], times["silent"]
    communication = summary([one - other for one, other in zip(waiting, silent, strict=True)])
    hidden = summary([one - other for one, other in zip(waiting, ours, strict=True)])
    clear = communication["min"] > 0 and hidden["max"] - hidden["min"] < communication["median"]
    share = hidden["median"] / communication["median"] if clear else None
    return {"communication": communication, "hidden": hidden, "hidden_share": share}


def difference(one: Task, other: Task) -> float:
    """The largest difference between weights of two tasks."""
    return max(
        float((a - b).detach().abs().max())
        for name, network in one.networks.items()
        for a, b in zip(network.module.parameters(), other.networks[name].module.parameters(), strict=True)
    )


# --- what starts them


def run_on(link: str, configs: list[str], steps: int) -> dict[str, Any]:
    """Start the two processes and wait for what they find. Raises Unavailable where the link can't be had."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        arguments = ["--configs", *configs, "--steps", str(steps), "--work", str(file)]
        with started(__file__, arguments, namespaces=link != "loopback") as processes:
            if link != "loopback":
                join(processes, link)
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                process.stdin.flush()
            wait(processes)
        return json.loads(file.read_text())  # type: ignore[no-any-return]


@contextmanager
def started(script: str, arguments: list[str], *, namespaces: bool) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes of a script, in network namespaces of their own if asked for; killed in the end."""
    loopback = "lo" if platform.system() == "Linux" else "lo0"
    address, device, port = (ADDRESSES[0], LINK, 29500) if namespaces else ("127.0.0.1", loopback, free_port())
    settings = os.environ | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    settings |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": device, "OMP_NUM_THREADS": "1"}
    settings |= {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # what they say here is of no interest
    line = [*(("unshare", "--net") if namespaces else ()), sys.executable, script, *arguments]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in ("0", "1"):
            own = settings | {"RANK": rank, "LOCAL_RANK": rank}
            processes.append(subprocess.Popen(line, env=own, stdin=subprocess.PIPE, stdout=sys.stderr))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def join(processes: list[subprocess.Popen[bytes]], rate: str) -> None:
    """Join the namespaces of two processes by a link of a certain rate. Raises Unavailable."""
    ours, pids = os.readlink("/proc/self/ns/net"), [process.pid for process in processes]
    while any(process.poll() is None and os.readlink(f"/proc/{process.pid}/ns/net") == ours for process in processes):
        time.sleep(0.01)  # unshare hasn't come to it yet
    if any(process.poll() is not None for process in processes):
        raise Unavailable("unshare makes no network namespace here")
    command(f"ip link add name {LINK} netns {pids[0]} type veth peer name {LINK} netns {pids[1]}")
    for pid, address in zip(pids, ADDRESSES, strict=True):
        inside = f"nsenter --target {pid} --net"
        command(f"{inside} ip address add {address}/30 dev {LINK}")
        command(f"{inside} ip link set lo up")
        command(f"{inside} ip link set {LINK} up")
        # A small bucket, so that short messages don't pass at full speed.
        command(f"{inside} tc qdisc add dev {LINK} root tbf rate {rate} burst 64kb latency 200ms")


def command(line: str) -> None:
    """Run a command. Raises Unavailable with what it says if it fails."""
    done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{line}: {' '.join(done.stderr.split())}")


def obstacle() -> str | None:
    """Why a link can't be slowed here; None if nothing is known to be in the way."""
    if platform.system() != "Linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def table(link: str, found: dict[str, Any]) -> str:
    """What was found on a link, for people."""
    lines = [f"{link}: {found['measured_mbit']:.0f} Mbit/s measured; load {found['load']:.1f}"]
    for name, each in found["configs"].items():
        lines.append(
            f"  {name}, {each['global_batch_size']} images a step; weights {each['weights_differ_by']:.1e} apart"
        )
        for arm in ("usual", "ours"):
            sent, took = each[arm], {key: 1e3 * value for key, value in each[arm]["seconds"].items()}
            lines.append(
                f"    {arm:5}  {sent['gradient_bytes']:>10,} bytes of gradients in {sent['gradient_all_reduces']}"
                f" all-reduces (other collectives: {sent['other_collectives']}),"
                f" {took['median']:.0f} ms ({took['min']:.0f} to {took['max']:.0f}), computing"
                f" {1e3 * each[arm]['cpu_seconds']['median']:.0f} ms"
            )
        ratio, share = each["ratio"], each["overlap"]["hidden_share"]
        hidden = "too noisy to tell what is hidden" if share is None else f"{share:.0%} of it hidden"
        lines.append(f"    ratio  {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}, n = {ratio['n']})")
        lines.append(f"    communication {1e3 * each['overlap']['communication']['median']:.0f} ms, {hidden}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=[str(file) for file in CONFIGS], help="cgan settings")
    parser.add_argument("--rates", nargs="*", default=["1gbit", "200mbit"], help="of the link, as tc writes them")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each arm")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # be one of the two processes
    options = parser.parse_args()
    if options.work is not None:
        sys.stdin.readline()
        end_with_parent()
        work(options.configs, options.steps, options.work)
        return

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are killed
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for link in ("loopback", *options.rates):
        reason = obstacle() if link != "loopback" else None
        try:
            if reason is not None:
                raise Unavailable(reason)
            results[link] = run_on(link, options.configs, options.steps)
            print(table(link, results[link]), flush=True)
        except Unavailable as why:
            skipped[link] = str(why)
            print(f"{link}: skipped, {why}", flush=True)
    if options.json:
        headline = Path(options.configs[0]).stem
        found = {
            "hardware": hardware(),
            "processes": 2,
            "ratio": results["loopback"]["configs"][headline]["ratio"],
            "ratio_of": f"seconds a step, usual over ours: {headline} on loopback",
            "links": results,
            "skipped": skipped,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
