"""launch/: Accelerate takes each file as it is, and each says what it is there for."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from helpers import ROOT

FILES = sorted((ROOT / "launch").glob("*.yaml"))
DISTRIBUTED_TYPES = {"one_gpu": "NO"} | {f"deepspeed_zero{stage}": "DEEPSPEED" for stage in (1, 2, 3)}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_is_one_for_each_way_to_train() -> None:
    assert {file.stem for file in FILES} >= {"cpu", "multi_gpu", "multi_node", *DISTRIBUTED_TYPES}


def test_accelerate_takes_the_file(file: Path) -> None:
    config = load_config_from_file(str(file))
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type.value == DISTRIBUTED_TYPES.get(file.stem, "MULTI_GPU")
    assert config.num_machines == (2 if file.stem == "multi_node" else 1)
    assert config.num_processes == (1 if file.stem == "one_gpu" else 2)


def test_the_file_leaves_to_colordist_what_colordist_decides(file: Path) -> None:
    settings = yaml.safe_load(file.read_text())
    assert settings["mixed_precision"] == "no"
    assert settings["use_cpu"] is False
    assert not {"dynamo_config", "fsdp_config", "mpirun_config", "downcast_bf16"} & settings.keys()


def test_the_command_in_the_file_starts_what_it_says(file: Path) -> None:
    """As the launcher reads it: the flags, then the file for what they leave out."""
    comments = [line[1:] for line in file.read_text().splitlines() if line.startswith("#")]
    (command,) = re.findall(r"accelerate launch (.*? -m colordist\.train) \.\.\.", " ".join(comments).replace("\\", ""))
    assert f"--config_file launch/{file.name} " in command
    flags = command.replace(f"launch/{file.name}", str(file)).split()
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(flags))
    assert (arguments.training_script, arguments.module) == ("colordist.train", True)
    assert (arguments.multi_gpu, arguments.use_deepspeed) == {
        "NO": (False, False),
        "MULTI_GPU": (True, False),
        "DEEPSPEED": (False, True),
    }[DISTRIBUTED_TYPES.get(file.stem, "MULTI_GPU")]
    asked = dict(pairwise(flags))
    assert arguments.num_processes == int(asked.get("--num_processes", "1"))
    assert arguments.main_process_ip == asked.get("--main_process_ip")


def test_the_readme_names_every_file(file: Path) -> None:
    assert f"| `{file.name}` |" in (ROOT / "launch/README.md").read_text()
