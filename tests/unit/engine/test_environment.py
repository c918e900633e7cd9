"""What a process takes from its machine and environment: cores, what may be compiled, variables."""

import re
from collections.abc import Iterator

import pytest
import torch
from helpers import alone_on_the_cpu

from colordist.engine.environment import check_compilation, share_cores
from colordist.engine.variables import check
from colordist.errors import UserError


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


# --- cores


FEW, ENOUGH, OTHERS = {0, 1, 2}, {0, 1, 2, 3}, {4, 5, 6, 7}


@pytest.mark.parametrize(
    ("own", "machine", "threads", "told"),
    [
        (FEW, [FEW, FEW], 1, ("(cores: 3, processes: 2)", "--cpus-per-task 4")),
        ({0}, [{0}, {1}, {2}, {3}], 1, ("(cores: 4, processes: 4)", "--cpus-per-task 2")),
        (ENOUGH, [ENOUGH, ENOUGH], 2, None),
        (ENOUGH, [ENOUGH, OTHERS], 4, None),  # each bound to its own
        (ENOUGH, [ENOUGH, {3}], 3, None),
    ],
)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_processes_share_cores_and_a_gpu_needs_two(
    device: str,
    own: set[int],
    machine: list[set[int]],
    threads: int,
    told: tuple[str, str] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    share_cores(device, own, machine)
    assert torch.get_num_threads() == threads
    lines = [record.message for record in caplog.records]
    assert len(lines) == (device == "cuda" and told is not None)
    assert all(part in line for line in lines for part in told or ())


# --- train.compile


def test_graphs_are_for_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compilation("graphs", "cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_compilation("default", "cuda")
    with pytest.raises(UserError, match=r"^train\.compile is graphs, .* 2 processes: try train\.compile default$"):
        check_compilation("graphs", "cuda")


# --- environment variables


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("WORLD_SIZE", "9" * 5000, "a whole number"),
        ("WORLD_SIZE", "1000001", "at most 1000000"),
        ("MASTER_PORT", "99999", "at most 65535: start with accelerate launch"),
        ("OMPI_COMM_WORLD_RANK", "first", "a whole number"),
        ("SLURM_PROCID", "٣", "a whole number"),
        ("OMP_NUM_THREADS", "x", "a whole number"),
        ("CUDA_VISIBLE_DEVICES", "the second", "GPUs, as in 0,1"),
        ("GLOO_SOCKET_IFNAME", "no0", "network interfaces of this machine"),
        ("TORCH_DISTRIBUTED_DEBUG", "1", "one of off, info, detail"),
        ("ACCELERATE_MIXED_PRECISION", "bf17", "one of no, fp64"),
        ("ACCELERATE_USE_CPU", "perhaps", "true or false"),
        ("ACCELERATE_USE_DEEPSPEED", "", "true or false"),
        ("ACCELERATE_TORCH_DEVICE", "gpu", "unset"),
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "two", "a whole number"),
        ("ACCELERATE_GRADIENT_CLIPPING", "x", "a number or none"),
        ("ACCELERATE_GRADIENT_CLIPPING", "nan", "a number or none"),
        ("ACCELERATE_LOG_LEVEL", "loud", "one of debug"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon", "a whole number"),
    ],
)
def test_an_odd_variable_is_a_mistake(name: str, text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("GLOO_SOCKET_IFNAME", "MASTER_PORT"):
        monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, text)
    with pytest.raises(UserError, match=rf"^{name} is '{re.escape(text)}', but must be .*{told}"):
        check()


def test_a_port_of_no_launch_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("MASTER_PORT", "tcp://10.0.0.1:80")  # by Kubernetes, of a service called master
    check()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("CUDA_VISIBLE_DEVICES", text) for text in ("", "0", "1,0", "-1", "NoDevFiles", "GPU-5a1c, MIG-5a1c/1/0")),
        *(("ACCELERATE_USE_CPU", text) for text in ("True", "false", "1", "no")),
        *(("ACCELERATE_GRADIENT_CLIPPING", text) for text in ("none", "auto", "0.5")),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),  # refused by the launch check
        ("GLOO_SOCKET_IFNAME", "ib0"),  # of the cluster's nodes; this process is alone
        ("OMP_NUM_THREADS", "4,2"),  # OpenMP's list for nested loops
        ("OMP_NUM_THREADS", ""),  # of $SLURM_CPUS_PER_TASK where SLURM sets none
        ("MASTER_PORT", "0"),
    ],
)
def test_a_usual_variable_is_none(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    check()
