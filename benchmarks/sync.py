"""Communication of a GAN's step between two processes: usual practice compared with ours, on slow links, on CPUs.

    python benchmarks/sync.py --json sync.json
    python benchmarks/sync.py --config configs/quickstart_cgan.yaml --links loopback 100mbit --rounds 30

*Usual* is the step of usual.py, *ours* is ``Engine.step``, which also keeps gradient norms and EMA weights. Both have
the same networks, losses, optimizers and images (noise), and should get the same weights: the relative difference of
their norms at the end is printed.

Two more arms show how much of the communication overlaps with backward: *blocking* is ours, but waits for each bucket's
all-reduce; *none* is ours without communication. Communication takes ``blocking - none``, of which ``blocking - ours``
is hidden.

*loopback* is that device as it is. Any other link is a rate: the two processes of each arm are in network namespaces
joined by a veth pair that tc slows down both ways (Linux, root, iproute2 and util-linux; skipped with the reason
elsewhere). The namespaces have no names, and end with their processes.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from harness import Arm, Processes, Results, Training, arguments, as_text, compare, finish, serve, summary, traffic
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from usual import usual_step

from colordist.color import ColorSpace
from colordist.config import Config
from colordist.data.batch import Batch
from colordist.data.sampler import UNIFORMS
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.training.build_task import build_networks, build_task

LINK = "link0"
ADDRESSES = "192.0.2.1", "192.0.2.2"  # reserved for documentation
TOOLS = "ip", "tc", "unshare", "nsenter"


class Unavailable(Exception):
    """A link that this machine doesn't allow, and why."""


def noise(config: Config, step: int) -> Batch:
    """This process's images of a step: noise, the same for all arms."""
    count, size = config.train.global_batch_size // dist.get_world_size(), config.data.image_size
    random = torch.Generator().manual_seed(2 * step + dist.get_rank())
    channels = ColorSpace(config.model.color_space).channels
    grey = torch.rand(count, 1, size, size, generator=random) * 2 - 1
    target = torch.randn(count, channels, size, size, generator=random)
    return Batch(grey, target, torch.zeros(count, UNIFORMS), torch.zeros(count, 1, 0), grey, torch.arange(count))


def extras(advance: Callable[[int], object], networks: Mapping[str, Network], step: int) -> Results:
    """Communication of a step, and norms of the weights."""
    found = traffic(advance, step)
    for name, network in networks.items():
        found[name] = float(torch.nn.utils.get_total_norm(network.module.parameters()).detach())
    return found


@contextmanager
def usual(config: Config) -> Iterator[Training]:
    """The usual step."""
    engine = Engine("fp32")  # makes the process group
    step, networks = usual_step(config, partial(noise, config))
    yield Training(step, partial(extras, step, networks))
    engine.close()


@contextmanager
def ours(config: Config, hook: Callable[..., Any] | None = None) -> Iterator[Training]:
    """Our step. hook: replaces the communication hook."""
    engine, task = Engine("fp32"), build_task(config)
    engine.prepare(task, build_networks(task, config))

    def step(number: int) -> None:
        with patch("colordist.engine.ddp.allreduce_hook", hook) if hook else nullcontext():
            engine.step(task, [noise(config, number)], number)

    yield Training(step, partial(extras, step, engine.networks))
    engine.close()


def blocking(group: Any, bucket: Any) -> Any:  # noqa: ANN401  torch doesn't export their types
    """A communication hook that waits for the bucket's all-reduce."""
    future = allreduce_hook(group, bucket)
    future.wait()
    return future


def no_communication(group: Any, bucket: Any) -> Any:  # noqa: ANN401
    """A communication hook that leaves every process its own gradient."""
    future: Any = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


ARMS = {
    "ours": Arm(ours),
    "usual": Arm(usual),
    "blocking": Arm(partial(ours, hook=blocking)),
    "none": Arm(partial(ours, hook=no_communication)),
}


def start(link: str, command: list[str]) -> Processes:
    """Two processes on a link. Raises Unavailable."""
    settings = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    if link == "loopback":
        device = "lo" if platform.system() == "Linux" else "lo0"
        return Processes(command, 2, settings | {"GLOO_SOCKET_IFNAME": device})
    if platform.system() != "Linux" or os.geteuid() != 0:
        raise Unavailable("network namespaces need Linux and root")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise Unavailable(f"not installed: {', '.join(missing)}")
    command = ["unshare", "--net", *command]
    processes = Processes(command, 2, settings | {"GLOO_SOCKET_IFNAME": LINK}, ADDRESSES[0])
    try:
        join(processes.processes, link)
    except Unavailable:
        processes.__exit__()
        raise
    return processes


def join(processes: list[subprocess.Popen[str]], rate: str) -> None:
    """Join the namespaces of two processes by a link of a certain rate. Raises Unavailable."""
    ours, pids = os.readlink("/proc/self/ns/net"), [process.pid for process in processes]
    while any(process.poll() is None and os.readlink(f"/proc/{process.pid}/ns/net") == ours for process in processes):
        time.sleep(0.01)  # unshare is still starting
    if any(process.poll() is not None for process in processes):
        raise Unavailable("unshare makes no network namespace here")
    run(f"ip link add name {LINK} netns {pids[0]} type veth peer name {LINK} netns {pids[1]}")
    for pid, address in zip(pids, ADDRESSES, strict=True):
        inside = f"nsenter --target {pid} --net"
        run(f"{inside} ip address add {address}/30 dev {LINK}")
        run(f"{inside} ip link set lo up")
        run(f"{inside} ip link set {LINK} up")
        # A small bucket, so that short messages don't pass at full speed.
        run(f"{inside} tc qdisc add dev {LINK} root tbf rate {rate} burst 64kb latency 200ms")


def run(line: str) -> None:
    """Run a command. Raises Unavailable with its error if it fails."""
    done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{line}: {' '.join(done.stderr.split())}")


def overlap(seconds: dict[str, list[float]]) -> Results:
    """Seconds of communication and how many of them are hidden; the share is None where noise is larger."""
    rounds = list(zip(seconds["blocking"], seconds["ours"], seconds["none"], strict=True))
    communication = summary([blocking - none for blocking, _, none in rounds])
    hidden = summary([blocking - ours for blocking, ours, _ in rounds])
    clear = communication["min"] > 0 and hidden["max"] - hidden["min"] < communication["median"]
    share = hidden["median"] / communication["median"] if clear else None
    return {"communication": communication, "hidden": hidden, "hidden_share": share}


def measure(link: str, options: argparse.Namespace) -> Results:
    """All arms on a link."""
    command = [sys.executable, *sys.argv, "--arm"]
    found, seconds = compare(list(ARMS), lambda name: start(link, [*command, name]), options)
    arms = found["arms"]
    found |= {"ratio": arms["usual"]["ratio"], "overlap": overlap(seconds)}
    norms = [(arms["ours"][name], arms["usual"][name]) for name in ("generator", "discriminator")]
    found["weights_difference"] = max(abs(one / other - 1) for one, other in norms)
    share = found["overlap"]["hidden_share"]
    hidden = "too noisy for the share that is hidden" if share is None else f"{share:.0%} of it hidden"
    print(f"  communication {as_text(found['overlap']['communication'], 0, 1e3)} ms, {hidden}")
    print(f"  norms of weights, usual and ours: relative difference {found['weights_difference']:.1e}", flush=True)
    return found


def main() -> None:
    parser = arguments(__doc__, 10, "cgan")
    parser.add_argument("--links", nargs="+", default=["loopback", "1gbit", "200mbit"], help="rates in tc's units")
    parser.add_argument("--steps", type=int, default=1, help="in a block")
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)  # run as a process of this arm
    options = parser.parse_args()
    if options.arm is not None:
        serve(ARMS[options.arm], options, {})
        return
    found: Results = {"config": options.config.stem, "processes": {"2": {}}, "links": {}, "skipped": {}}
    for link in options.links:
        try:
            print(f"{link}, time of a step over that of ours:")
            found["links"][link] = measure(link, options)
        except Unavailable as why:
            found["skipped"][link] = str(why)
            print(f"{link}: skipped, {why}", flush=True)
    if "loopback" in found["links"]:
        found["processes"]["2"]["ratio"] = found["links"]["loopback"]["ratio"]
    finish(options, found)


if __name__ == "__main__":
    main()
