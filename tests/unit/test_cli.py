"""A mistake on the command line or in a file is one line that helps, on stderr, at once, with exit code 2."""

import contextlib
import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, leaves

from colordist import cli
from colordist.cli.parser import parse
from colordist.config import Config, RunConfig, RunError, UserError
from colordist.train import train
from colordist.training.stop_requests import SIGNALS


def mistake(arguments: list[str]) -> str:
    """The one line that these arguments are refused with; nothing else may be said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(UserError) as refusal:
        parse(arguments)
    message = str(refusal.value)
    assert "\n" not in message
    assert said.getvalue() == ""
    return message


def started(*arguments: str, module: str = "colordist.train", **environment: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )


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
    "misspelt task": ("--task gan", ["task", "'gan'", "did you mean cgan?"]),
    "bad resume": ("--resume maybe", ["resume", "'maybe'", "auto, never"]),
    "value left out": ("--train.steps", ["--train.steps", "expected one argument"]),
    "too small": ("--train.global_batch_size 0", ["train.global_batch_size is 0", "try train.global_batch_size 1"]),
    "below a range": ("--data.image_size 3", ["data.image_size is 3", "[16, 512]", "try data.image_size 16"]),
    "above a range": ("--data.image_size 900", ["data.image_size is 900", "try data.image_size 512"]),
    "above 0": ("--optimizer.discriminator.lr 0", ["optimizer.discriminator.lr is 0", "above 0", "try"]),
    "optional out of range": ("--train.micro_batch_size 0", ["train.micro_batch_size is 0", "at least 1"]),
    "empty list": ("--data.classes []", ["data.classes is empty", "data.classes all"]),
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
    file.write_text("task: cgan\n")
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
}


@pytest.mark.parametrize("name", IN_A_FILE)
def test_mistake_in_a_file(name: str, tmp_path: Path) -> None:
    text, told = IN_A_FILE[name]
    file = tmp_path / "own.yaml"
    file.write_text(text)
    message = mistake(["--config", str(file)])
    for words in told:
        assert words in message


def test_value_for_a_section_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("train: 3\n")
    message = mistake(["--config", str(file)])
    assert "train" in message
    assert "functools" not in message


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


def test_no_arguments_is_the_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = parse(["--dry_run", "--run.dir", str(tmp_path / "run")])
    assert (command.name, command.file) == ("quickstart_cgan", None)
    assert dataclasses.replace(command.config, run=RunConfig()) == Config()
    train(command)
    assert "no --config: quickstart_cgan" in capsys.readouterr().out


def test_each_section_keeps_its_own_settings() -> None:
    command = parse(["--optimizer.generator.lr", "0.5", "--discriminator.norm", "none", "--data.classes", "[cat,dog]"])
    config = command.config
    assert (config.optimizer.generator.lr, config.optimizer.discriminator.lr) == (0.5, Config().optimizer.generator.lr)
    assert (config.model.norm, config.discriminator.norm) == (Config().model.norm, "none")
    assert config.data.class_names == ("cat", "dog")


def test_another_component_on_the_command_line_takes_what_fits_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "task: {name: cgan, pixel: l2, pixel_weight: 3}\ndata: {source: cifar10, root: here, seed: 5}\n"
        "discriminator: {width: 8}\noptimizer: {generator: {lr: 0.5}, discriminator: {lr: 0.1}}\n"
    )
    command = parse(["--config", str(file), "--task.name", "autoencoder", "--data.source", "synthetic"])
    config = command.config
    assert (command.name, config.task.name, config.task.pixel) == ("a", "autoencoder", "l2")
    assert (config.data.source, config.data.seed) == ("synthetic", 5)
    assert (config.discriminator, config.optimizer.keys(), config.optimizer["generator"].lr) == (
        None,
        {"generator"},
        0.5,
    )
    assert "task.nothing" in mistake([f"--config={file}", "--task.name", "autoencoder", "--task.nothing", "1"])
    assert "task.pixel_weight" in mistake(
        [f"--config={file}", "--task.name", "autoencoder", "--task.pixel_weight", "1"]
    )


# --- --help, --print_config, --dry_run


def test_help_tells_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--help"])
    assert left.value.code == 0
    blocks = {  # from the option's name to what follows up to the next option
        block.split()[0]: " ".join(block.split()[1:]) for block in re.split(r"\n  (?=--)", capsys.readouterr().out)
    }
    for key, hint in leaves():
        told = blocks[f"--{key}"]
        found = re.search(r"(?P<meaning>[A-Z`].*\.) \(type: (?P<type>.+), default: (?P<default>.+?)\)", told)
        assert found, f"{key}: {told}"
        assert len(found["meaning"].split()) >= 2, key
        assert hint not in (int, float, bool, str) or found["type"] == hint.__name__


def test_print_config_can_be_fed_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task.name", "autoencoder", "--seed", "9", "--data.classes", "[cat]", "--model.bottleneck", "7"]
    arguments += ["--optimizer.generator.clip_norm", "2", "--optimizer.discriminator.lr", "1e-4"]
    arguments += ["--train.micro_batch_size", "3", "--track.wandb", "off"]
    with pytest.raises(SystemExit) as left:
        parse([*arguments, "--print_config"])
    assert left.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    config = parse(["--config", str(file)]).config
    assert config == parse(arguments).config
    assert config != Config()


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
    refused = started("--train.stpes", "3")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "colordist: unknown key train.stpes: did you mean train.steps? --help lists them all\n"


def test_batch_that_the_processes_cannot_share(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"run:\n  dir: {tmp_path / 'run'}\ntrain:\n  global_batch_size: 32\n")
    refused = started("--config", str(file), WORLD_SIZE="3", RANK="0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    for words in ("train.global_batch_size is 32", "3 processes", "try 30 or 33", "1, 2, 4 processes"):
        assert words in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["--train.steps", "x"]], ids=["help", "mistake"])
def test_answers_without_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {arguments}\n"
        "from colordist.train import main\n"
        "try: main()\n"
        "except SystemExit as left: print(left.code, sorted({'torch', 'accelerate', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == ("0 []" if arguments == ["--help"] else "2 []")


# --- colordist VERB


def call_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["colordist", *arguments])
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        for number, handler in handlers.items():  # `train` takes signals as requests, and whatever is forked would, too
            signal.signal(number, handler)
    return 0


def test_unknown_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch, "trian", "--seed", "3") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "colordist: unknown verb 'trian': did you mean train?\n"


def test_verbs_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch) == 0
    said = capsys.readouterr().out
    for verb in cli.VERBS:
        assert verb in said


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_helps(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch, verb, "--help") == 0
    assert f"colordist {verb}" in capsys.readouterr().out


def test_verb_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch, "train", "--train.stpes", "3") == 2
    assert "did you mean train.steps?" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(UserError("this"), 2), (RunError("this"), 1)])
def test_run_turns_an_error_into_a_line_and_a_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb() -> None:
        raise error

    with pytest.raises(SystemExit) as left:
        cli.run(verb)
    assert left.value.code == code
    assert capsys.readouterr().err == "colordist: this\n"


def test_bug_keeps_its_traceback() -> None:
    def verb() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(verb)


@pytest.mark.parametrize("text", ["train: {steps: ~}", "log: {every: null}", "optimizer: {generator: {lr: ~}}"])
def test_null_where_none_is_meant(text: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text + "\n")
    assert " is null, but must be a" in mistake(["--config", str(file)])
