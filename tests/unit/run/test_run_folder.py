"""A run folder: whose run it is, whether it may be continued, how far it got."""

import errno
import json
from pathlib import Path

import pytest
import yaml
from faults import refusing_kind, watched
from helpers import config_with, tiny

from colordist.config import Config, as_dict
from colordist.errors import RunError, UserError
from colordist.files.atomic import replace_text
from colordist.keys import flatten
from colordist.run.folder import RunFolder, folder_for, step_name
from colordist.run.identity import fingerprint

USUAL = config_with({})


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    """The folder of a run with default settings."""
    folder = RunFolder(tmp_path / "run")
    folder.write_settings(USUAL)
    return folder


def refusal(folder: RunFolder, config: Config) -> str:
    with pytest.raises(UserError) as refused:
        folder.check_same_run(config)
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder.path) in message
    return message


def test_folder_for() -> None:
    config = USUAL
    assert folder_for(config, "horses") == Path(f"runs/horses-{fingerprint(config)}")
    assert folder_for(config_with({"run.dir": "/there"}), "horses") == Path("/there")


def test_step_names_sort_like_steps() -> None:
    steps = [0, 5, 50, 999, 1000, 20_000, 999_999]
    assert step_name(500) == "step-000500"
    assert sorted(map(step_name, reversed(steps))) == list(map(step_name, steps))


def test_a_new_folder_takes_any_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.state == "new"
    folder.check_same_run(config_with({"resume": "never"}))


def test_the_same_run_is_continued(begun: RunFolder) -> None:
    assert begun.state == "unfinished"
    begun.check_same_run(USUAL)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log.every", 7),
        ("evaluate.every", 7),
        ("checkpoint.every", 7),
        ("checkpoint.keep", 7),
        ("track.wandb", "offline"),
        ("track.project", "other"),
        ("track.to", ["mlflow", "tensorboard"]),
        ("run.dir", "elsewhere"),
        ("train.micro_batch_size", 3),
        ("train.steps", USUAL.train.steps + 1),
    ],
)
def test_what_may_change(begun: RunFolder, key: str, value: object) -> None:
    begun.check_same_run(config_with({key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("task.name", "cyclegan"),
        ("model.width", 8),
        ("data.source", "cifar10"),
        ("optimizer.discriminator.lr", 0.5),
        ("train.global_batch_size", 8),
        ("train.steps", 1000),  # downward
        ("train.precision", "fp64"),
        ("task.pixel", "l2"),
    ],
)
def test_what_may_not_change_is_named(begun: RunFolder, key: str, value: object) -> None:
    message = refusal(begun, config_with({key: value}))
    assert f"{key} was {flatten(as_dict(USUAL))[key]}, now {value}" in message


def test_a_setting_that_an_older_version_did_not_know_was_at_its_default(begun: RunFolder) -> None:
    settings = begun.settings()
    del settings["task"]["label_smoothing"], settings["train"]["nonfinite"]
    begun.config_file.write_text(yaml.safe_dump(settings))
    begun.check_same_run(USUAL)
    assert "task.label_smoothing was 0.0, now 0.1" in refusal(begun, config_with({"task.label_smoothing": 0.1}))


def test_all_differences_are_named(begun: RunFolder) -> None:
    message = refusal(begun, config_with({"seed": 5, "model.width": 8}))
    assert "seed was 0, now 5" in message
    assert "model.width was" in message
    assert "model.depth" not in message


def test_auto_is_what_it_was_resolved_to(begun: RunFolder) -> None:
    begun.write_settings(config_with({"train.precision": "bf16"}))
    begun.check_same_run(config_with({"train.precision": "auto"}))
    begun.check_same_run(config_with({"train.precision": "bf16"}))
    assert "train.precision was bf16, now fp32" in refusal(begun, config_with({"train.precision": "fp32"}))


def test_never_resume(begun: RunFolder) -> None:
    assert "--resume never" in refusal(begun, config_with({"resume": "never"}))


def test_settings_of_another_version_differ(begun: RunFolder) -> None:
    settings = as_dict(USUAL)
    settings["task"]["magic"] = 3
    begun.config_file.write_text(yaml.safe_dump(settings))
    message = refusal(begun, USUAL)
    assert "task.magic was 3, now None" in message


def test_markers(begun: RunFolder) -> None:
    steps = USUAL.train.steps
    assert not begun.is_finished(steps)
    begun.mark("stopped", 3)
    assert RunFolder(begun.path).state == "stopped"
    assert not begun.is_finished(steps)
    begun.mark("finished", steps)
    assert RunFolder(begun.path).state == "finished"
    assert not (begun.path / "stopped").exists()
    assert begun.is_finished(steps)
    assert begun.is_finished(steps - 1)
    assert not begun.is_finished(steps + 1)  # more is wanted
    begun.begin(config_with({"train.steps": steps + 1}))
    assert begun.state == "unfinished"
    assert begun.settings()["train"]["steps"] == steps + 1


def test_the_marker_says_why_and_answers_the_file(begun: RunFolder) -> None:
    begun.stop_file.touch()
    begun.mark("stopped", 3, "SIGUSR1")
    assert json.loads((begun.path / "stopped").read_text()) == {"step": 3, "reason": "SIGUSR1"}
    assert not begun.stop_file.exists()


def test_a_disk_that_refuses_is_one_line(begun: RunFolder) -> None:
    with watched(refusing_kind("write", errno.EROFS)):
        with pytest.raises(UserError, match=r"run can't be written \(Read-only file system\): name another --run\.dir"):
            begun.begin(USUAL)
        with pytest.raises(RunError, match=r"finished can't be written \(Read-only file system\): once it can be, the"):
            begun.mark("finished", 3)
    assert begun.settings()["task"]["name"] == "cgan"
    assert begun.state == "unfinished"


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "replace"])
def test_a_file_is_replaced_whole_or_not_at_all(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    replace_text(file, "before")
    with watched(refusing_kind(kind)), pytest.raises(OSError, match="No space left"):
        replace_text(file, "after")
    assert file.read_text() == "before"
    replace_text(file, "after")
    assert file.read_text() == "after"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["train: [1,", "", "- 1\n", "hello", "\x00"])
def test_damaged_settings(begun: RunFolder, text: str) -> None:
    begun.config_file.write_text(text)
    with pytest.raises(UserError, match="damaged") as refused:
        begun.settings()
    assert "\n" not in str(refused.value)
    assert str(begun.config_file) in str(refused.value)


def test_settings_that_are_no_text(begun: RunFolder) -> None:
    begun.config_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="damaged"):
        begun.settings()


def test_folder_without_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run folder: it has no config\.yaml"):
        RunFolder(tmp_path).settings()


def test_settings_come_back(begun: RunFolder) -> None:
    config = config_with({"data.source": "folder", "data.classes": ["cat", "dog"]})
    begun.write_settings(config)
    assert begun.settings() == as_dict(config)


def test_records(begun: RunFolder) -> None:
    assert begun.records() == []
    begun.metrics_file.write_text('{"step": 1, "x": NaN}\n{"step": 2}\n{"step": 3, "gener')
    first, second = begun.records()
    assert (first["step"], second) == (1, {"step": 2})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": None}, "no section train"),
        ({"data": 5}, "no section data"),
        ({"task": ["cgan"]}, "no section task"),
        ({"track": None}, "no section track"),
        ({"train": {"steps": "many"}}, "train.steps: expected int, got str"),
    ],
)
def test_damaged_settings_are_one_line(change: dict[str, object], told: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_settings(tiny())
    folder.config_file.write_text(yaml.safe_dump(yaml.safe_load(folder.config_file.read_text()) | change))
    with pytest.raises(UserError, match=f"config.yaml is damaged: .*{told}"):
        folder.settings()


def test_common_settings_that_are_missing_have_their_defaults(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_settings(tiny())
    written = yaml.safe_load(folder.config_file.read_text())
    del written["train"]["tf32"]
    folder.config_file.write_text(yaml.safe_dump(written))
    assert folder.settings()["train"]["tf32"] is False


def test_another_task_is_told_by_what_both_have(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_settings(tiny(task__name="cgan"))
    with pytest.raises(UserError) as refusal:
        folder.check_same_run(tiny(task__name="autoencoder", seed=3))
    told = str(refusal.value)
    assert "(seed was 0, now 3, task.name was cgan, now autoencoder)" in told
