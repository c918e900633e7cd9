"""Settings: how a batch is divided, what makes a run's identity, and the files in configs/."""

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from helpers import ROOT, config_with, leaves
from hypothesis import given
from hypothesis import strategies as st

from colordist import registry
from colordist.cli.parser import parse
from colordist.config import Config, DataConfig, GeneratorSettings, TaskSettings, TrainConfig, as_dict
from colordist.errors import UserError
from colordist.keys import flatten
from colordist.registry import Names
from colordist.run.identity import changed_keys, fingerprint, learning_keys
from colordist.training.batch_arithmetic import batch_arithmetic

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

# --- how a batch is divided


@given(share=st.integers(1, 300), processes=st.integers(1, 40), micro=st.none() | st.integers(1, 400))
def test_shares_and_micro_batches_cover_the_batch(share: int, processes: int, micro: int | None) -> None:
    train = TrainConfig(global_batch_size=share * processes, micro_batch_size=micro)
    batches = batch_arithmetic(train, processes)
    assert batches.per_process * batches.processes == batches.global_batch_size == train.global_batch_size
    most = micro or share
    # As few micro-batches as possible: one less would not hold a process's share.
    assert batches.accumulation * most >= share > (batches.accumulation - 1) * most


@given(total=st.integers(1, 2000), processes=st.integers(1, 70))
def test_what_a_refusal_suggests_fits(total: int, processes: int) -> None:
    if total % processes == 0:
        assert batch_arithmetic(TrainConfig(global_batch_size=total), processes).per_process == total // processes
        return
    with pytest.raises(UserError) as refusal:
        batch_arithmetic(TrainConfig(global_batch_size=total), processes)
    told = re.fullmatch(
        rf"train.global_batch_size is {total}, which {processes} processes can't share equally: "
        r"try (.+), or one of (.+) processes",
        str(refusal.value),
    )
    assert told
    for size in map(int, told[1].split(" or ")):
        batch_arithmetic(TrainConfig(global_batch_size=size), processes)
        assert abs(size - total) < processes  # the nearest ones
    for count in map(int, told[2].split(", ")):
        batch_arithmetic(TrainConfig(global_batch_size=total), count)


def test_batch_arithmetic_by_hand() -> None:
    batches = batch_arithmetic(TrainConfig(global_batch_size=48, micro_batch_size=5), 4)
    # 48 / 4 = 12 images each; portions of at most 5: 3 of them, of 4.
    assert (batches.per_process, batches.accumulation) == (12, 3)
    assert str(batches) == "48 images a step = 4 processes x 12 images, in 3 micro-batches of at most 4"


# --- sizes that must be halved


def halved(size: int, depth: int) -> Config:
    """A config with this image size and this depth of the only network."""
    return config_with({"task.name": "autoencoder", "data.image_size": size, "model.depth": depth})


def follow_advice(size: int, depth: int) -> None:
    """Do what the refusal says. Raises UserError if that is refused too."""
    with pytest.raises(UserError) as refusal:
        halved(size, depth)
    told = re.search(r"model\.depth is .* try (model\.depth|data\.image_size) (\d+)$", str(refusal.value))
    assert told
    halved(size, int(told[2])) if told[1] == "model.depth" else halved(int(told[2]), depth)


@given(size=st.integers(16, 512), depth=st.integers(1, 8))
def test_image_size_must_be_halved_depth_times(size: int, depth: int) -> None:
    if size % 2**depth == 0 and size // 2**depth >= 2:  # down to two pixels
        halved(size, depth)
    elif depth >= 3:
        follow_advice(size, depth)


@pytest.mark.parametrize(("size", "depth"), [(17, 1), (33, 2)])
def test_advice_for_shallow_networks_fits(size: int, depth: int) -> None:
    follow_advice(size, depth)


def refused(**settings: object) -> str:
    """What is said of settings that don't fit."""
    with pytest.raises(UserError) as refusal:
        config_with({key.replace("__", "."): value for key, value in settings.items()})
    return str(refusal.value)


def test_attention_needs_a_level_that_is_there() -> None:
    assert refused(model__attention_level=4).endswith("try model.attention_level 3")


def test_several_answers_need_noise() -> None:
    assert refused(task__candidates=2).endswith("without noise all candidates are equal: try model.noise 6")
    told = refused(task__candidates=2, model__name="autoencoder")
    assert "model.name autoencoder takes no noise" in told
    assert told.endswith("try task.candidates 1, or model.name unet --model.noise 6")
    assert "at least 2 latent codes" in refused(model__noise=1)
    config_with({"model.noise": 4, "task.candidates": 2})


def test_relativistic_pairs_have_no_labels() -> None:
    config_with({"task.label_smoothing": 0.1})
    told = refused(task__adversarial="relativistic", task__label_smoothing=0.1)
    assert re.fullmatch(r"task.label_smoothing is 0.1, .* try task.label_smoothing 0", told)


def test_augmentations_have_names() -> None:
    assert refused(task__augment=["cutout", "flip"]) == "task.augment has flip: try translation or cutout"


WEIGHTS = ["task.pixel_weight", "task.adversarial_weight", "task.r1_weight", "task.r2_weight", "train.ema_images"]


@pytest.mark.parametrize("key", WEIGHTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_no_nonsense_for_a_weight(key: str, value: float) -> None:
    assert refused(**{key: value}).startswith(f"{key} is {value}")


# --- components


def test_unknown_components_and_keys() -> None:
    assert refused(task__name="gcan").startswith("task.name: there is no 'gcan' among autoencoder, cgan, cyclegan")
    assert refused(model__widht=8) == "unknown key model.widht: did you mean model.width?"
    assert refused(task__name="autoencoder", discriminator__width=8).startswith("there is no section discriminator")
    assert refused(task__name=3).startswith("task.name is 3, but must be a name: autoencoder, cgan, cyclegan")


def test_a_component_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    with pytest.raises(UserError, match="there is no 'own'"):
        registry.component("model", "own")

    @registry.register("model", "own")
    class Own:
        Settings = GeneratorSettings

    assert registry.component("model", "own") is registry.register("model", "own")(Own) is Own  # a module run twice
    assert registry.names("model")[-1] == "own"
    for taken in ("own", "unet"):
        with pytest.raises(ValueError, match=f"there is a model named {taken} already"):
            registry.register("model", taken)(type("Another", (), {"Settings": GeneratorSettings}))
    registry.register("task", "own")(type("Task", (), {"Settings": TaskSettings}))  # a name is taken in its kind alone
    with pytest.raises(TypeError, match=r"int\.Settings must be a dataclass derived from TaskSettings"):
        registry.register("task", "third")(int)


def test_a_module_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('two\\nlines')")
    for module, reason in {"own_broken": "RuntimeError: two lines", "own_missing": "No module named"}.items():
        with pytest.raises(UserError, match=rf"^--import {module}: it can't be imported \(.*{reason}") as refused:
            registry.load_modules([module])
        assert "\n" not in str(refused.value)


# --- identity

WEIGHTS_KEYS = {"task.feature_weights"}  # not the file's path, but its content is part of the identity
OPERATIONAL = {
    "data.max_memory_gb",
    *("data.config_name", "data.revision", "data.cache"),
    "data.root",
    "data.workers",
    "task.feature_sha256",
    "resume",
    "run.dir",
    "run.heartbeat_timeout",
    "run.stall_timeout",
    "train.micro_batch_size",
    "train.activation_checkpointing",
    "train.nonfinite",
    "train.skip_limit",
    "train.max_minutes",
    "log.every",
    "evaluate.every",
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.keep_every",
    "checkpoint.on_error",
    "evaluate.metrics",
    "track.wandb",
    "track.to",
    "track.project",
    "track.entity",
    "track.group",
    "track.tags",
    "track.notes",
    "track.job_type",
    "track.snapshots",
}


def another(key: str, hint: Any, value: Any) -> Any:  # noqa: ANN401  any setting
    """A value other than this one that is valid too."""
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    if key.endswith(".depth"):
        return 2 if value == 1 else 1
    if key == "model.attention_level":
        return 2
    if key == "data.resize":
        return 2 * DataConfig.image_size
    if key == "task.augment":
        return ["cutout"]
    if key == "evaluate.metrics":
        return ["lpips"]
    if key == "track.to":
        return ["mlflow"]
    if key == "train.freeze":
        return ["encoder"]
    if key.endswith(".lr_scales"):
        return {"encoder": 0.5}
    match value:
        case None:
            return "elsewhere" if str in get_args(hint) else 4
        case bool():
            return not value
        case int():
            return value * 2 or 1
        case float():
            return value / 2 or 0.25
        case str():
            return value + "x"
        case list():
            return [*value, "x"]
    raise TypeError(key)


def every_key() -> dict[tuple[str, Names], Any]:
    """Every key with the components that have it, but for those that name components; and its type."""
    found: dict[str, tuple[Names, Any]] = {}
    for names in (Names(), Names(task="cyclegan"), Names(source="folder"), Names(source="datasets")):
        found = {key: (names, hint) for key, hint in leaves(names) if key not in registry.NAME_KEYS} | found
    return {(key, names): hint for key, (names, hint) in found.items()}


@pytest.mark.parametrize(("key", "names"), every_key(), ids=str)
def test_identity_is_what_is_learned(key: str, names: Names) -> None:
    chosen = {"task.name": names.task, "data.source": names.source}
    needed: dict[str, dict[str, Any]] = {
        "task.candidates": {"model.noise": 4},
        "model.noise": {"model.noise": 4},
        "task.feature_sha256": {"task.feature_weights": "file"},
    }
    config = config_with(chosen | needed.get(key, {}))
    other = config_with({key: another(key, every_key()[key, names], flatten(as_dict(config))[key])}, config)
    assert other != config
    assert (fingerprint(other) == fingerprint(config)) == (key in OPERATIONAL | WEIGHTS_KEYS)
    assert (key in learning_keys(as_dict(config))) == (key not in OPERATIONAL)


@pytest.mark.parametrize(("name", "value"), [("task.name", "cyclegan"), ("model.name", "autoencoder")])
def test_identity_has_the_keys_of_chosen_components_alone(name: str, value: str) -> None:
    config = config_with({name: value})
    assert changed_keys(as_dict(config)) == {name: value}
    assert fingerprint(config) != fingerprint(config_with({}))
    assert fingerprint(parse([f"--{name}", value, "--data.source", "synthetic"]).config) == fingerprint(config)
    assert learning_keys(as_dict(config)).keys() <= {key for key, _ in leaves(Names.of(as_dict(config)))}


def test_fingerprint_does_not_depend_on_how_a_value_was_given(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train:\n  steps: 700\n")
    told = parse(["--config", str(file)]).config
    assert fingerprint(told) == fingerprint(parse(["--train.steps", "700"]).config)
    assert re.fullmatch("[0-9a-f]{8}", fingerprint(told))


def test_settings_survive_a_file() -> None:
    asked = as_dict(config_with({"data.source": "folder", "data.classes": ["cat"]}))
    assert learning_keys(yaml.safe_load(yaml.safe_dump(asked))) == learning_keys(asked)


def test_flatten() -> None:
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": [3]}}}) == {"a": 1, "b.c": 2, "b.d.e": [3]}


# --- configs/


def test_the_configs_are_there() -> None:
    assert {"quickstart_ae", "quickstart_cgan", "ae", "cgan", "photos", "photos_cgan", "cyclegan"} <= {
        file.stem for file in CONFIGS
    }


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_config_parses_and_dry_runs(file: Path) -> None:
    from colordist.training.describe import describe

    config = parse(["--config", str(file)]).config
    told = describe(config, batch_arithmetic(config.train, 1))
    assert "generator:" in told
    assert ("discriminator: " in told) == config.task.has_discriminator
    assert ("decolorizer: " in told) == (config.task.name == "cyclegan")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_config_has_a_comment_for_each_key(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# ")
    keys = [line for line in lines if re.match(r"\s*\w+: +[^\s#]", line)]
    assert len(keys) == len(flatten(yaml.safe_load(file.read_text())))  # no key escapes
    for line in keys:
        assert re.search(r" # \S", line), line


def test_defaults_are_the_quickstart() -> None:
    assert parse(["--config", str(ROOT / "configs" / "quickstart_cgan.yaml")]).config == config_with({})


# Each rung, the one that it stands on, and which of the keys that both have differ.
SPECTRAL = "discriminator.spectral_norm"
RUNGS: dict[str, tuple[str, set[str]]] = {
    "02-deep": ("01-shallow", {"model.depth"}),
    "03-wide": ("02-deep", {"model.width"}),
    "04-bottleneck": ("03-wide", {"model.bottleneck"}),
    "05-unet": ("02-deep", {"model.name"}),
    "06-gan": ("05-unet", {"task.name"}),
    "07-spectral": ("06-gan", {"discriminator.norm", "discriminator.spectral_norm"}),
    "08-ema": ("07-spectral", {"train.ema_images"}),
    "09-warmup": ("08-ema", {"task.warmup_steps"}),
    "10-augment": ("09-warmup", {"task.augment"}),
    "11-backbone": ("10-augment", {"model.blocks", "model.attention_level"}),
    "12-relativistic": ("11-backbone", {"task.adversarial", "task.r1_weight", "task.r2_weight", SPECTRAL}),
}


def test_each_rung_of_the_ladder_is_tested() -> None:
    assert sorted([*RUNGS, "01-shallow"]) == [file.stem for file in CONFIGS if file.parent.name == "ladder"]


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_of_the_ladder_is_one_change(rung: str) -> None:
    below, changes = RUNGS[rung]
    one, other = (settings_of(f"ladder/{name}") for name in (below, rung))
    assert {key for key in one.keys() & other.keys() if one[key] != other[key]} == changes


def test_quickstarts_differ_only_in_the_task() -> None:
    one, other = settings_of("quickstart_ae"), settings_of("quickstart_cgan")
    assert one["task.name"] == "autoencoder"
    for key in ("data.source", "data.image_size", "data.seed", "data.train_images", "data.test_images"):
        assert one[key] == other[key]


def settings_of(name: str) -> dict[str, Any]:
    return flatten(as_dict(parse(["--config", str(ROOT / f"configs/{name}.yaml")]).config))
