"""A mistake on the command line or in a file is one line that helps, on stderr, at once, with exit code 2."""

import contextlib
import dataclasses
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, config_with, leaves

from colordist import registry
from colordist.cli.parser import parse
from colordist.config import COMMON, FileDataConfig, RunConfig
from colordist.errors import UserError
from colordist.keys import nest
from colordist.registry import Names
from colordist.tasks.autoencoder import AutoencoderSettings
from colordist.train import train


def mistake(arguments: list[str]) -> str:
    """The one line that these arguments are refused with; nothing else may be said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(UserError) as refusal:
        parse(arguments)
    message = str(refusal.value)
    assert "\n" not in message
    assert said.getvalue() == ""
    return message


ON_THE_COMMAND_LINE = {
    "misspelt key": ("--train.stpes 3", ["train.stpes", "did you mean train.steps?"]),
    "misspelt key with =": ("--train.stpes=3", ["train.stpes", "did you mean train.steps?"]),
    "misspelt key without section": ("--ssed 1", ["ssed", "did you mean seed?"]),
    "misspelt section": ("--trian.steps 3", ["trian.steps", "did you mean train.steps?"]),
    "no section": ("--norm group", ["unknown key norm", "did you mean model.norm?"]),
    "wrong section": ("--model.steps 3", ["model.steps", "did you mean train.steps?"]),
    "level left out": ("--optimizer.lr 3", ["optimizer.lr", "did you mean optimizer.generator.lr?"]),
    "dash for underscore": ("--dry-run", ["dry-run", "did you mean dry_run?"]),
    "abbreviated key": ("--see 3", ["unknown key see", "did you mean seed?"]),
    "words for a number": ("--train.steps many", ["train.steps", "'many'", "a whole number"]),
    "fraction for a whole number": ("--train.steps 1.5", ["train.steps", "'1.5'", "a whole number"]),
    "words for a rate": ("--optimizer.generator.lr fast", ["optimizer.generator.lr", "'fast'", "a number"]),
    "not a number": ("--optimizer.generator.lr .nan", ["optimizer.generator.lr", "nan", "above 0"]),
    "neither true nor false": ("--train.deterministic maybe", ["train.deterministic", "'maybe'", "true or false"]),
    "neither number nor null": ("--model.bottleneck x", ["model.bottleneck", "'x'", "a whole number or null"]),
    "misspelt choice": ("--model.norm grup", ["model.norm", "'grup'", "group, instance", "did you mean group?"]),
    "misspelt source": ("--data.source syntetic", ["data.source", "'syntetic'", "did you mean synthetic?"]),
    "misspelt task": ("--task.name gan", ["task.name", "'gan'", "did you mean cgan?"]),
    "bad resume": ("--resume maybe", ["resume", "'maybe'", "auto, never"]),
    "value left out": ("--train.steps", ["--train.steps", "expected one argument"]),
    "too small": ("--train.global_batch_size 0", ["train.global_batch_size is 0", "try train.global_batch_size 1"]),
    "below a range": ("--data.image_size 3", ["data.image_size is 3", "[16, 512]", "try data.image_size 16"]),
    "above a range": ("--data.image_size 900", ["data.image_size is 900", "try data.image_size 512"]),
    "above 0": ("--optimizer.discriminator.lr 0", ["optimizer.discriminator.lr is 0", "above 0", "try"]),
    "optional out of range": ("--train.micro_batch_size 0", ["train.micro_batch_size is 0", "at least 1"]),
    "empty list": ("--data.source folder --data.classes []", ["data.classes is empty", "data.classes all"]),
    "no component": ("--task.name=", ["task.name is ''", "autoencoder, cgan"]),
    "no folder": ("--run.dir=", ["run.dir is empty"]),
    "no weights": ("--train.init_from=", ["train.init_from is empty"]),
    "no config file": ("--config=", ["--config is empty"]),
    "no data": ("--data.source folder --data.root=", ["data.root is empty"]),
    "one tag is empty": ("--track.tags ['']", ["track.tags is empty"]),
    "misspelt tracker": ("--track.to tensorbord", ["track.to", "'tensorbord'", "did you mean tensorboard?"]),
    "one tracker of two": ("--track.to [mlflow,neptune]", ["track.to", "'neptune'", "clearml"]),
    "wandb among trackers": ("--track.to wandb", ["track.to has wandb", "try track.wandb auto"]),
    "unclosed list": ("--data.source folder --data.classes [a", ["data.classes is '[a'", "a list"]),
    "section of a section": ("--optimizer.generator 5", ["optimizer.generator is a section"]),
    "key of a key": ("--train.steps.x 5", ["unknown key train.steps.x"]),
    "key of a key deeper": ("--optimizer.generator.lr.x 5", ["unknown key optimizer.generator.lr.x"]),
    "misspelt metric": ("--evaluate.metrics [lpip]", ["evaluate.metrics", "'lpip'", "did you mean lpips?"]),
    "rubbish": ("rubbish", ["'rubbish'", "--section.key value"]),
    "rubbish after settings": ("--train.steps=5 rubbish", ["'rubbish'", "--section.key value"]),
    "missing file": ("--config nowhere.yaml", ["--config", "no file", "nowhere.yaml"]),
}


@pytest.mark.parametrize("name", ON_THE_COMMAND_LINE)
def test_mistake_on_the_command_line(name: str) -> None:
    arguments, told = ON_THE_COMMAND_LINE[name]
    message = mistake(arguments.split())
    for words in told:
        assert words in message


# Found out only once all sections are there.
TOGETHER = {
    "seed": ("--seed -1", ["seed is -1", "try seed 0"]),
    "model too deep": ("--model.depth 7", ["model.depth is 7", "data.image_size 32", "try model.depth 4"]),
    "odd size": (
        "--data.image_size 33 --model.depth 3",
        ["model.depth is 3", "data.image_size 33", "try data.image_size 16"],
    ),
    "discriminator too deep": ("--discriminator.depth 5", ["discriminator.depth is 5", "try discriminator.depth 4"]),
    "warm-up without a loss": (
        "--task.warmup_steps 5 --task.pixel_weight 0",
        ["task.warmup_steps is 5", "task.pixel_weight 0", "try task.warmup_steps 0"],
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_impossible_combination(name: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("task: {name: cgan}\n")
    arguments, told = TOGETHER[name]
    message = mistake(["--config", str(file), *arguments.split()])
    for words in told:
        assert words in message


def test_impossible_combination_of_the_quickstart_says_nothing_else() -> None:
    assert "model.depth is 7" in mistake(["--model.depth", "7"])


IN_A_FILE = {
    "misspelt key": ("train:\n  stpes: 3\n", ["train.stpes", "did you mean train.steps?"]),
    "misspelt key deeper": ("optimizer:\n  generator:\n    lrr: 3\n", ["did you mean optimizer.generator.lr?"]),
    "misspelt section": ("trian:\n  steps: 3\n", ["trian.steps", "did you mean train.steps?"]),
    "no section": ("steps: 3\n", ["unknown key steps", "did you mean train.steps?"]),
    "key of a key": ("train:\n  steps:\n    x: 3\n", ["train.steps"]),
    "NUL in a path": ('run:\n  dir: "a\\0b"\n', ["run.dir has a NUL character"]),
    "wrong type": ("train:\n  steps: x\n", ["train.steps", "'x'", "a whole number"]),
    "misspelt choice": ("model:\n  norm: grup\n", ["model.norm", "'grup'", "did you mean group?"]),
    "out of range": ("model:\n  width: 3\n", ["model.width is 3", "try model.width 4"]),
    "impossible combination": ("data:\n  image_size: 36\n", ["model.depth is 3", "try model.depth 2"]),
    "damaged": ("train: [1,", ["--config", "no YAML"]),
    "tab": ("train:\n\tsteps: 3\n", ["--config", "no YAML", "line 2"]),
    "a list": ("- 1\n- 2\n", ["--config", "no YAML"]),
    "a word": ("hello\n", ["--config", "no YAML"]),
    "empty": ("", ["--config", "no YAML"]),
    "comments only": ("# nothing yet\n", ["--config", "no YAML"]),
    "empty section": ("train:\nseed: 3\n", ["train is empty", "must be a section"]),
    "value for a section": ("train: 3\n", ["train is 3", "train: {KEY: value}"]),
    "value for an optimizer": ("optimizer: 5\n", ["optimizer is 5", "must be a section"]),
    "value for a network's optimizer": ("optimizer: {generator: 5}\n", ["optimizer.generator is 5"]),
    "level left out": ("optimizer: {lr: 5}\n", ["optimizer.lr", "did you mean optimizer.generator.lr?"]),
    "section twice": ("train: {steps: 400}\ntrain: {tf32: true}\n", ["train is given twice"]),
    "key with a dot": ("task.name: autoencoder\n", ["write task.name as `task: {name: ...}`"]),
    "another file": ("config: own.yaml\n", ["--config several times"]),
    "missing module": ("import: [nowhere]\n", ["--import nowhere", "PYTHONPATH"]),
    "no name": ("task: {name: ''}\n", ["task.name is ''", "autoencoder, cgan"]),
    "choice in a list": ("train: {freeze: [all]}\n", ["train.freeze is 'all'", "[encoder, decoder]"]),
    "loss of version 0.1": ("loss: 5\n", ["version 0.1", "task"]),
}


@pytest.mark.parametrize("name", IN_A_FILE)
def test_mistake_in_a_file(name: str, tmp_path: Path) -> None:
    text, told = IN_A_FILE[name]
    file = tmp_path / "own.yaml"
    file.write_text(text)
    message = mistake(["--config", str(file)])
    for words in told:
        assert words in message


@pytest.mark.parametrize("text", ["3", "[3]", "[3, horse]", "['007']"])
def test_numbers_as_names_of_classes(text: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"data: {{source: folder, classes: {text}}}\n")
    names = tuple(name.strip("' ") for name in text.strip("[]").split(","))
    for arguments in (["--config", str(file)], ["--data.source", "folder", "--data.classes", text]):
        data = parse(arguments).config.data
        assert isinstance(data, FileDataConfig)
        assert data.class_names == names


@pytest.mark.parametrize(
    "text",
    [
        "raise ValueError('two\\nlines')",
        "raise SystemExit(3)",
        "def (",
        "from colordist.registry import register\n@register('model', 'unet')\nclass Taken: pass",
        "from colordist.registry import register\n@register('model', 'bare')\nclass WithoutSettings: pass",
    ],
)
def test_module_that_fails(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_component.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert "--import failing_component: it can't be imported" in mistake(["--import", "failing_component"])


def test_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "--config" in mistake(["--config", str(file)])


def test_section_given_a_value() -> None:
    message = mistake(["--model", "unet"])
    assert "model" in message
    assert "Parser key" not in message  # the parser's own words


def test_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("seed: 3\ntrain:\n  steps: 500\n  global_batch_size: 8\n")
    command = parse(["--config", str(file), "--train.steps", "700"])
    assert (command.name, command.dry_run) == ("own", False)
    assert (command.config.seed, command.config.train.steps, command.config.train.global_batch_size) == (3, 700, 8)


def test_text_of_a_file_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("track: {notes: '1e3', tags: ['1e3', 2026-11-28]}\noptimizer: {generator: {lr: 1e-4}}\n")
    config = parse(["--config", str(file)]).config
    assert (config.track.notes, config.track.tags) == ("1e3", ["1e3", "2026-11-28"])
    assert config.optimizer["generator"].lr == 1e-4


def test_no_arguments_is_the_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = parse(["--dry_run", "--run.dir", str(tmp_path / "run")])
    assert (command.name, command.file) == ("quickstart_cgan", None)
    assert dataclasses.replace(command.config, run=RunConfig()) == config_with({})
    train(command)
    assert "no --config: quickstart_cgan" in capsys.readouterr().out


def test_each_section_keeps_its_own_settings() -> None:
    arguments = ["--optimizer.generator.lr", "0.5", "--discriminator.norm", "none", "--data.source", "folder"]
    config, usual = parse([*arguments, "--data.classes", "[cat,dog]"]).config, config_with({})
    assert config == config_with(
        {
            "optimizer.generator.lr": 0.5,
            "discriminator.norm": "none",
            "data.source": "folder",
            "data.classes": ["cat", "dog"],
        }
    )
    assert config.optimizer["discriminator"] == usual.optimizer["discriminator"]
    assert config.model == usual.model


# --- components

# Keys that exist, but only with another component.
OF_ANOTHER = {
    "task": ("--task.name autoencoder --task.adversarial_weight 5", ["task.name cgan", "not of autoencoder"]),
    "task of three": ("--task.cycle_weight 5", ["task.name cyclegan", "not of cgan", "choose --task.name cyclegan"]),
    "model": ("--model.name autoencoder --model.blocks 1", ["model.blocks", "--model.name unet"]),
    "source": ("--data.root x", ["data.root is a setting of data.source", "not of synthetic"]),
    "source of two": ("--data.source folder --data.train_images 5", ["choose --data.source synthetic"]),
    "network": ("--task.name autoencoder --discriminator.width 8", ["task autoencoder has no discriminator"]),
    "optimizer": (
        "--task.name autoencoder --optimizer.discriminator.lr 0.1",
        ["optimizer.discriminator.lr: task autoencoder has no discriminator", "--task.name cgan"],
    ),
}


@pytest.mark.parametrize("name", OF_ANOTHER)
def test_key_of_a_component_that_was_not_chosen(name: str, tmp_path: Path) -> None:
    arguments, told = OF_ANOTHER[name]
    pairs = arguments.replace("--", "").split()
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(nest(dict(zip(pairs[::2], pairs[1::2], strict=True)))))
    for message in (mistake(arguments.split()), mistake(["--config", str(tmp_path / "own.yaml")])):
        for words in [*told, pairs[-2]]:
            assert words in message


def test_name_on_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("task: {name: cyclegan, pixel: l2}\n")
    assert parse(["--config", str(file), "--task.name", "cgan"]).config == config_with({"task.pixel": "l2"})
    file.write_text("task: {name: cyclegan, cycle_weight: 3}\n")
    assert parse(["--config", str(file), "--task.name=cgan"]).config == config_with({})  # of another component
    file.write_text("task: {name: cyclegan, nothing: 3}\n")
    assert "task.nothing" in mistake(["--config", str(file), "--task.name=cgan"])


VERSION_01 = {
    "--task cgan": "task: {name: cgan}, or --task.name cgan",
    "--loss.adversarial_weight 1": "task.adversarial_weight",
    "--loss.draws 2": "task.candidates",
    "--loss.difference_weight 2": "task.gradient_loss_weight",
    "--loss.pool_slots 2": "task.image_buffer_slots",
    "--run.silence 9": "run.heartbeat_timeout",
    "--run.patience 9": "run.stall_timeout",
    "--optimizer.generator.factors {encoder: 0.1}": "optimizer.generator.lr_scales",
    "--train.gradient_checkpointing true": "train.activation_checkpointing",
    "--evaluate.classifier DIR": "evaluate.metrics, as in [features]",
    "--evaluate.networks [lpips]": "evaluate.metrics",
}


@pytest.mark.parametrize("argument", VERSION_01)
def test_key_of_version_01(argument: str, tmp_path: Path) -> None:
    key, _, value = argument.removeprefix("--").partition(" ")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(nest({key: yaml.safe_load(value)})))
    for message in (mistake([f"--{key}", value]), mistake(["--config", str(tmp_path / "own.yaml")])):
        assert key in message
        assert VERSION_01[argument] in message


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a module with a task; forgets it, and what it registered."""
    (tmp_path / "own_task.py").write_text(
        "from dataclasses import dataclass\n"
        "from colordist.config import TaskSettings\n"
        "from colordist.registry import register\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Settings(TaskSettings):\n"
        "    sigma: float = 0.5\n"
        "@register('task', 'own')\n"
        "class Own:\n"
        "    Settings = Settings\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    yield tmp_path
    sys.modules.pop("own_task", None)


@pytest.mark.parametrize("where", ["file", "command line"])
def test_a_component_of_another_package(own_task: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A task in a module of its own: its keys are known, and no other's."""
    (own_task / "own.yaml").write_text("import: own_task\ntask: {name: own, sigma: 2}\n")
    own = ["--import", "own_task", "--task.name", "own"]
    given = ["--config", str(own_task / "own.yaml")] if where == "file" else [*own, "--task.sigma", "2"]
    with pytest.raises(SystemExit) as left:
        parse([*given, "--print_config"])
    said = capsys.readouterr()
    assert (left.value.code, said.err) == (0, "")
    assert yaml.safe_load(said.out)["task"] == {"name": "own", "sigma": 2.0}
    told = "task.pixel is a setting of task.name autoencoder, not of own"
    assert told in mistake([*own, "--task.pixel", "l2"])


def test_another_component_on_the_command_line_takes_what_fits_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "task: {name: cgan, pixel: l2, pixel_weight: 3}\ndata: {source: cifar10, root: here, seed: 5}\n"
        "discriminator: {width: 8}\noptimizer: {generator: {lr: 0.5}, discriminator: {lr: 0.1}}\n"
    )
    command = parse(["--config", str(file), "--task.name", "autoencoder", "--data.source", "synthetic"])
    config = command.config
    assert isinstance(config.task, AutoencoderSettings)
    assert (command.name, config.task.name, config.task.pixel) == ("a", "autoencoder", "l2")
    assert (config.data.source, config.data.seed) == ("synthetic", 5)
    assert config.discriminator is None
    assert {name: each.lr for name, each in config.optimizer.items()} == {"generator": 0.5}
    assert "task.nothing" in mistake([f"--config={file}", "--task.name", "autoencoder", "--task.nothing", "1"])
    assert "task.pixel_weight" in mistake(
        [f"--config={file}", "--task.name", "autoencoder", "--task.pixel_weight", "1"]
    )


def test_a_source_that_has_been_removed(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("data: {source: shards, root: packed, shuffle_shards: 4}")
    line = "data.source: shards has been removed: name the folder that was packed (data.source folder), or save it as "
    for arguments in ([f"--config={file}"], ["--data.source", "shards", "--data.root", "packed"]):
        assert mistake(arguments).startswith(line)


# --- --help, --print_config, --dry_run


@pytest.mark.parametrize(
    "arguments",
    [[], ["--task.name=cgan"], ["--task.name", "cyclegan", "--data.source", "datasets", "--model.name", "autoencoder"]],
)
def test_help_tells_every_key(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Those that every run has; with the name of a component, all."""
    with pytest.raises(SystemExit) as left:
        parse([*arguments, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    blocks = {  # from the option's name to what follows up to the next option
        block.split()[0]: " ".join(block.split()[1:]) for block in re.split(r"\n  (?=--)", said)
    }
    assert not {f"--{key.rpartition('.')[0]}" for key, _ in leaves() if "." in key} & blocks.keys()  # sections
    names = dict(zip(arguments[::2], arguments[1::2], strict=True)) if len(arguments) > 1 else {}
    chosen = Names.of(nest({key.removeprefix("--"): value for key, value in names.items()}))
    for key, hint in leaves(chosen):
        if not arguments and key.split(".")[0] not in COMMON:
            continue
        told = blocks[f"--{key}"]
        found = re.search(r"(?P<meaning>[A-Z`].*\.) \(type: (?P<type>.+), default: (?P<default>.+?)\)", told)
        assert found, f"{key}: {told}"
        assert len(found["meaning"].split()) >= 2, key
        assert hint not in (int, float, bool, str) or found["type"] == hint.__name__
    if not arguments:
        for key, name in zip(registry.NAME_KEYS, dataclasses.astuple(Names()), strict=True):
            assert f"default: {name})" in blocks[f"--{key}"]
        for kind in registry.OURS:
            assert f"--{registry.key_of(kind)}: {', '.join(registry.names(kind))}" in said


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``--print_config`` prints."""
    with pytest.raises(SystemExit) as left:
        parse([*arguments, "--print_config"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_print_config_of_a_recipe_is_a_config_of_any_verb(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "printed.yaml"
    file.write_text(text := printed(["--config", str(recipe)], capsys))
    assert not {"dry_run", "print_run_dir"} & yaml.safe_load(text).keys()  # which the doctor doesn't have
    assert printed(["--config", str(file)], capsys) == text
    assert parse(["--config", str(file)]).config == parse(["--config", str(recipe)]).config


def test_print_config_can_be_fed_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task.name", "cyclegan", "--seed", "9", "--data.source", "folder", "--data.classes", "[cat]"]
    arguments += ["--model.bottleneck", "7", "--optimizer.generator.clip_norm", "2"]
    arguments += ["--optimizer.generator.lr_scales", "{encoder: 0.5}", "--optimizer.discriminator.lr", "1e-4"]
    arguments += ["--evaluate.metrics", "[lpips, {name: inception}]"]
    arguments += ["--train.micro_batch_size", "3", "--track.wandb", "off"]
    file = tmp_path / "printed.yaml"
    file.write_text(printed(arguments, capsys))
    config = parse(["--config", str(file)]).config
    assert config == parse(arguments).config
    assert config.model.bottleneck == 7  # type: ignore[attr-defined]


def test_dry_run_tells_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from colordist.train import train
    from colordist.training.build_task import build_task

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    batches = ["--train.global_batch_size", "20", "--train.micro_batch_size", "4"]
    command = parse(["--dry_run", "--model.width", "4", *batches])
    train(command)
    said = capsys.readouterr().out
    # Ten images a process in portions of at most four: three portions.
    assert "20 images a step = 2 processes x 10 images, in 3 micro-batches of at most 4" in said
    for name, network in build_task(command.config).networks.items():
        assert f"{name}: {sum(p.numel() for p in network.module.parameters()):,} parameters" in said
    assert re.search(r"runs/quickstart_cgan-[0-9a-f]{8}", said)
    assert list(tmp_path.iterdir()) == []


# --- processes, exit codes


def test_exit_code_and_streams() -> None:
    command = [sys.executable, "-m", "colordist.train", "--train.stpes", "3"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "colordist: unknown key train.stpes: did you mean train.steps? --help lists them all\n"


def test_batch_that_the_processes_cannot_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"run:\n  dir: {tmp_path / 'run'}\ntrain:\n  global_batch_size: 32\n")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError) as refusal:
        train(parse(["--config", str(file)]))
    message = str(refusal.value)
    assert "\n" not in message
    for words in ("train.global_batch_size is 32", "3 processes", "try 30 or 33", "1, 2, 4 processes"):
        assert words in message
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--train.stpes", "3"], 2), (["--loss.draws", "3"], 2), (["--config", "nowhere.yaml"], 2)],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_answers_without_torch(arguments: list[str], code: int) -> None:
    program = (
        f"import sys; sys.argv[1:] = {arguments}\n"
        "from colordist.train import main\n"
        "try: main()\n"
        "except SystemExit as left: print(left.code, sorted({'torch', 'accelerate', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == f"{code} []"


@pytest.mark.parametrize("text", ["train: {steps: ~}", "log: {every: null}", "optimizer: {generator: {lr: ~}}"])
def test_null_where_none_is_meant(text: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text + "\n")
    assert " is null, but must be a" in mistake(["--config", str(file)])
