"""Launches: all processes train one run, or are refused with one line; never several independent runs.

``accelerate launch --multi_gpu --num_processes 2`` and ``--cpu`` are in ``test_smoke.py``, DeepSpeed is in
``test_deepspeed.py``.
"""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, config_with, random_generator, timm_weights, write_snapshot
from hub import Hub, hub, serving

from launch import LAUNCHER, TINY_GAN, Finished, arguments, begin, finish, launch, records, train

pytestmark = [pytest.mark.dist, pytest.mark.slow]

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process, without a launcher."""
    run = tmp_path_factory.mktemp("alone") / "run"
    done = finish(begin([sys.executable, *trainer(run)]))
    assert done.returncode == 0, done.stderr
    return run


def trainer(run: Path, **more: Any) -> list[str]:  # noqa: ANN401  any setting
    """Arguments of Python that run the trainer."""
    return ["-m", "colordist.train", *arguments(TINY_GAN, run__dir=run, **more)]


def launch_file(folder: Path, distributed_type: str) -> Path:
    """Write a file as ``accelerate config`` does for two processes on CPUs."""
    file = folder / "launch.yaml"
    settings = {"compute_environment": "LOCAL_MACHINE", "distributed_type": distributed_type, "debug": False}
    settings |= {"num_machines": 1, "num_processes": 2, "machine_rank": 0, "main_process_port": 0}
    settings |= {"rdzv_backend": "static", "same_network": True, "mixed_precision": "no", "use_cpu": True}
    file.write_text(yaml.safe_dump(settings))
    return file


def assert_work_as_one(run: Path, done: list[Finished], processes: int, alone: Path) -> None:
    """Assert that processes shared the work, all-reduced gradients, wrote one run, and match a single process."""
    assert [each.returncode for each in done] == [0] * len(done), [each.stderr for each in done]
    output = "".join(each.stdout for each in done)
    assert output.count("run folder") == 1
    assert f"= {processes} processes x {12 // processes} images" in output
    expected, found = records(alone), records(run)
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-9, abs=1e-12)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sent = [line["pace/sync_bytes"] for line in lines if "pace/sync_bytes" in line]
    assert len(sent) == 3
    assert all((each > 0) == (processes > 1) for each in sent)


def assert_refused(done: Finished, run: Path, message: str) -> None:
    """Assert that one line was printed, once, and nothing written."""
    assert done.returncode != 0
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("colordist:")]
    assert len(mistakes) == 1, done.stderr
    assert message in mistakes[0]
    assert not run.exists()


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


# --- launches that work


def test_without_file_or_flag_accelerate_starts_one_process(alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # An HF_HOME without the default file of `accelerate config`.
    done = launch([], "colordist.train", *arguments(TINY_GAN, run__dir=run), HF_HOME=str(tmp_path))
    assert_work_as_one(run, [done], 1, alone)


def test_two_processes_from_our_file(alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--config_file", str(ROOT / "launch/cpu.yaml"), "--num_processes", "2"]
    assert_work_as_one(run, [launch(flags, "colordist.train", *arguments(TINY_GAN, run__dir=run))], 2, alone)


def test_use_cpu_in_a_file_is_not_needed_and_does_no_harm(alone: Path, tmp_path: Path) -> None:
    """Accelerate by itself would run two processes, each with rank 0 and world size 1."""
    run = tmp_path / "run"
    flags = ["--config_file", str(launch_file(tmp_path, "MULTI_GPU"))]
    assert_work_as_one(run, [launch(flags, "colordist.train", *arguments(TINY_GAN, run__dir=run))], 2, alone)


def test_torchrun(alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *trainer(run)]
    assert_work_as_one(run, [finish(begin(command))], 2, alone)


def test_two_machines(alone: Path, tmp_path: Path) -> None:
    """Both simulated on this machine; the second is started first."""
    run = tmp_path / "run"
    flags = [
        *("--config_file", str(ROOT / "launch/multi_node.yaml"), "--num_machines", "2", "--num_processes", "2"),
        *("--main_process_ip", "127.0.0.1", "--main_process_port", free_port()),
    ]
    begun = [begin([*LAUNCHER, *flags, "--machine_rank", rank, *trainer(run)]) for rank in ("1", "0")]
    assert_work_as_one(run, [finish(each) for each in begun], 2, alone)


def test_doctor_as_tasks_of_srun(tmp_path: Path) -> None:
    """Without a launcher, with the variables of a step of two nodes."""
    common = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, "-m", "colordist.doctor", *arguments(TINY_GAN, run__dir=tmp_path / "run")]
    done = [finish(each) for each in [begin(command, **common, SLURM_PROCID=rank) for rank in ("1", "0")]]
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    assert done[0].stdout == ""
    rows = [line.split(maxsplit=2) for line in done[1].stdout.splitlines()]
    assert "ok  torch runs on  cpu, fp64, backend gloo" in done[1].stdout
    assert ["ok", "all-reduce"] in [row[:2] for row in rows]


# --- launches that are refused


def test_a_file_that_starts_only_one_of_two_processes_is_refused(tmp_path: Path) -> None:
    flags = ["--config_file", str(launch_file(tmp_path, "MULTI_CPU"))]
    done = launch(flags, "colordist.train", *arguments(TINY_GAN, run__dir=tmp_path / "run"))
    assert_refused(done, tmp_path / "run", "started only one: add --multi_gpu (on CPUs too), or use")


def test_fsdp_is_refused(tmp_path: Path) -> None:
    done = train(*arguments(TINY_GAN, run__dir=tmp_path / "run"), processes=2, flags=["--use_fsdp"])
    assert_refused(done, tmp_path / "run", "the launcher asks for FSDP")


@pytest.mark.parametrize(
    ("more", "environment", "message"),
    [
        ({"train__precision": "fp16"}, {}, "train.precision is fp16, but there is no GPU here: try"),
        ({}, {"ACCELERATE_MIXED_PRECISION": "fp16"}, "the launcher asks for fp16, but train.precision is fp64"),
        ({}, {"WORLD_SIZE": "abc", "RANK": "0"}, "WORLD_SIZE is 'abc'"),
        ({}, {"WORLD_SIZE": "2"}, "WORLD_SIZE is '2', but RANK is not set"),
        ({}, {"RANK": "1"}, "RANK is '1', but WORLD_SIZE is not set"),
        ({}, {"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({}, {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1x"}, "LOCAL_WORLD_SIZE is '1x'"),
        ({}, {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE is 2"),
    ],
)
def test_what_cannot_be_is_the_users_mistake(
    more: dict[str, str], environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = finish(begin([sys.executable, *trainer(tmp_path / "run", **more)], **environment))
    assert done.returncode == 2
    assert_refused(done, tmp_path / "run", message)
    assert "Traceback" not in done.stderr


def test_evaluate_needs_to_know_its_rank_too(alone: Path) -> None:
    before = sorted(alone.iterdir())
    done = finish(begin([sys.executable, "-m", "colordist.evaluate", str(alone)], RANK="1"))
    assert done.returncode == 2
    assert done.stderr.startswith("colordist: RANK is '1', but WORLD_SIZE is not set")
    assert "Traceback" not in done.stderr
    assert sorted(alone.iterdir()) == before


def test_weights_are_fetched_once_per_machine(tmp_path: Path) -> None:
    settings = {
        **{"task.name": "autoencoder", "model.name": "timm_unet", "model.encoder": "test_efficientnet"},
        **{"data.image_size": 64, "data.train_images": 8, "data.test_images": 4, "train.steps": 2},
    }
    with hub(timm_weights(tmp_path / "weights.safetensors", "test_efficientnet")) as (address, downloads):
        home = str(tmp_path / "home")
        fetched = arguments(settings, run__dir=tmp_path / "fetched")
        done = train(*fetched, processes=2, HF_ENDPOINT=address, HF_HOME=home)
    assert done.returncode == 0, done.stderr
    assert len(downloads) == 1
    done = train(*arguments(settings, run__dir=tmp_path / "file", model__weights=tmp_path / "weights.safetensors"))
    assert done.returncode == 0, done.stderr
    first, other = (tmp_path / name / "pretrained" for name in ("fetched", "file"))
    assert first.read_text() == other.read_text()


def test_initial_weights_of_the_hub_are_fetched_once_per_machine(tmp_path: Path) -> None:
    settings = {"task.name": "autoencoder", "model.name": "autoencoder", "model.width": 4, "model.depth": 1}
    settings |= {"data.train_images": 8, "data.test_images": 4, "train.steps": 2, "train.init_from": "me/tiny"}
    model = config_with({key: each for key, each in settings.items() if key.startswith(("task", "model"))}).model
    write_snapshot(tmp_path / "a", model, random_generator(model, 0.1), step=1)
    held = Hub()
    commit = held.add("me/tiny", {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()})
    run, home = tmp_path / "run", str(tmp_path / "home")
    with serving(held):
        done = train(*arguments(settings, run__dir=run), processes=2, HF_ENDPOINT=held.address, HF_HOME=home)
    assert done.returncode == 0, done.stderr
    assert (run / "init_from").read_text().split()[1:] == [f"me/tiny@{commit}"]
    assert len(held.downloads) == 2  # the description and the weights
