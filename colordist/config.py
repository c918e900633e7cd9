"""Common settings, and base classes of components' settings. Imports neither torch nor most of colordist.

Tasks, generators, discriminators and sources derive their settings from a base class in here; only the selected
components' keys exist (registry.py). An invalid value is refused in one line: the key, the value, and a valid one.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from colordist.errors import UserError, printable
from colordist.optimizers import PARTS, GeneratorOptimizerConfig, OptimizerConfig, Part, check_parts
from colordist.ranges import above_zero, at_least, in_range

Value = str | int | float | bool | list[Any] | dict[str, float] | None


# Base classes of components' settings


@dataclass(frozen=True, kw_only=True)
class ComponentSettings:
    """Base of a component's settings."""

    operational: ClassVar[frozenset[str]] = frozenset()
    """Keys that are not part of a run's identity, and may change on resume."""
    weights_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of pretrained weights: `none`, `pretrained` or a file. Not their value but the weights are part of a run's
    identity."""

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range."""

    def portable(self) -> dict[str, Any]:
        """As plain values without what is a machine's own: operational keys, and paths of pretrained weights."""
        return self.without_paths(dataclasses.asdict(self))

    @classmethod
    def without_paths(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Plain values by key, without operational keys and paths of pretrained weights: see ``portable``."""
        return {
            key: "pretrained" if key in cls.weights_keys and value != "none" else value
            for key, value in values.items()
            if key not in cls.operational
        }

    def check(self, config: "Config") -> None:
        """Raise UserError if these settings don't fit the others."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings(ComponentSettings):
    """The task: networks, losses, phases."""

    optimizers: ClassVar[Mapping[str, type[OptimizerConfig]]] = {"generator": GeneratorOptimizerConfig}
    """The task's `optimizer.NAME` sections."""
    has_discriminator: ClassVar[bool] = False
    """Whether there is a section `discriminator`."""

    name: str = ""
    """Training task."""

    @property
    def takes_hints(self) -> bool:
        """Whether the generator takes colour hints besides grey."""
        return False

    @property
    def gradient_penalties(self) -> dict[str, float]:
        """Weights of losses with second derivatives, by key. Neither DeepSpeed nor torch.compile supports these."""
        return {}

    @property
    def pretrained(self) -> tuple[str, ...]:
        """Names of the timm models whose weights the losses use."""
        return ()


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(ComponentSettings):
    """The generator."""

    has_time_input: ClassVar[bool] = False
    """Whether the network can be built with a time input: ``time_conditioned=True``."""
    has_condition_input: ClassVar[bool] = False
    """Whether the network wants to know how many of its input channels, the last ones, are no image: ``conditions``."""

    name: str = ""
    """Generator architecture."""
    color_space: Literal["lab", "rgb"] = "lab"
    """Output: `lab` predicts a,b for the Lab L of the grey pixel, `rgb` all three channels."""

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this, in pixels, and at least twice this."""
        return 1

    @property
    def full_size_channels(self) -> int:
        """Channels that features have at the size of the image, at least: images that can't fit are refused by it."""
        return 1

    @property
    def noise_size(self) -> int:
        """Length of the noise vector per sample; 0 for a deterministic network."""
        return 0

    @property
    def pretrained(self) -> tuple[str, ...]:
        """Names of the timm models whose weights training starts from."""
        return ()


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings(ComponentSettings):
    """The discriminator."""

    name: str = ""
    """Discriminator architecture."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(ComponentSettings):
    """The images."""

    source: str = ""
    """Dataset to train on."""
    image_size: int = 32
    """Height and width in pixels."""
    seed: int = 0
    """Seed of painted scenes, and of the subset if `data.fraction` is below 1."""
    fraction: float = 1.0
    """Fraction of the training images to train on."""
    flip: bool = True
    """Random horizontal flips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("data.image_size", self.image_size, 16, 512)
        at_least("data.seed", self.seed, 0, 2**63 - 2)
        if not 0 < self.fraction <= 1:
            raise UserError(f"data.fraction is {self.fraction}, but must be above 0 and at most 1: try data.fraction 1")


@dataclass(frozen=True, kw_only=True)
class FileDataConfig(DataConfig):
    """Images from files. Their content is part of a run's identity, their path is not."""

    operational: ClassVar[frozenset[str]] = frozenset({"root"})

    root: str = "data"
    """Folder of the images."""
    classes: list[str | int] | str | int = "all"
    """Classes to use, e.g. [horse, cat], or `all`. Kept as text: quote names such as '007' in YAML."""
    resize: int | None = None
    """Shorter side in pixels that images are scaled to before they are cropped. Default: data.image_size."""
    crop: Literal["center", "random"] = "center"
    """Crop of training images; test images are always cropped at the centre."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize is not None:
            in_range("data.resize", self.resize, self.image_size, 4 * 512)
        if self.resize == self.image_size:
            object.__setattr__(self, "resize", None)  # the same run
        given = self.classes
        if isinstance(given, str) and given.startswith("["):
            raise UserError(f"data.classes is {given!r}, but must be a list, as in [horse, cat], or a name without [")
        object.__setattr__(self, "classes", [str(each) for each in given] if isinstance(given, list) else str(given))
        if not self.classes:
            raise UserError("data.classes is empty: name at least one class, or try data.classes all")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes to use; None for all of them."""
        if self.classes == "all":
            return None
        return tuple(map(str, self.classes)) if isinstance(self.classes, list) else (str(self.classes),)


# Common sections


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The run folder, and failure detection."""

    dir: str | None = None
    """Run folder. Default: runs/<config name>-<hash of settings and dataset>."""
    heartbeat_timeout: float = 30.0
    """Seconds without a heartbeat after which a process counts as lost and all others stop."""
    stall_timeout: float = 600.0
    """Seconds that one operation may take, or keep other processes waiting, except loading of images."""

    def __post_init__(self) -> None:
        if self.dir == "":
            raise UserError("run.dir is empty: name a folder, or leave it out")
        at_least("run.heartbeat_timeout", self.heartbeat_timeout, 1, 10**9)
        at_least("run.stall_timeout", self.stall_timeout, 1, 10**9)


Compiled = Literal["off", "default", "graphs"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Steps, batch sizes, precision."""

    steps: int = 3300
    """Training steps; each trains all networks on one global batch."""
    global_batch_size: int = 16
    """Images per step, over all processes."""
    micro_batch_size: int | None = None
    """Maximum images per process and forward pass; beyond: gradient accumulation. Default: no limit."""
    activation_checkpointing: bool = False
    """Recompute activations in backward: less memory, more time, identical results."""
    precision: Literal["auto", "fp64", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the networks. `auto`: bf16 autocast on GPUs that support it, else fp32."""
    deterministic: bool = False
    """Deterministic algorithms only (slower on GPUs; CPUs are always deterministic)."""
    tf32: bool = False
    """Allow TF32 in fp32 matmuls and convolutions (faster on NVIDIA GPUs since Ampere)."""
    compile: Compiled = "off"
    """Compile the networks with torch.compile; `graphs`: also capture CUDA graphs, on one GPU."""
    nonfinite: Literal["skip", "stop"] = "skip"
    """On Inf or NaN in a gradient: `skip` the network's update and count it, or `stop` the run."""
    skip_limit: int = 20
    """Maximum consecutive skipped updates; beyond, the run stops at the next log line."""
    max_minutes: float | None = None
    """Save a checkpoint and stop after this many minutes; the same command resumes. Default: no limit."""
    ema_images: int = 1000
    """Half-life in images of the generator's EMA weights, which are evaluated and saved; 0: off."""
    init_from: str | None = None
    """Run, snapshot, bundled model (photos-small) or the Hub's `user/name[@revision]` to initialise the generator from.
    Default: random weights."""
    init_strict: bool = True
    """Require all weights of `train.init_from` to match; `false`: load those that do."""
    freeze: list[Part] = dataclasses.field(default_factory=list)
    """Parts of the generator to freeze: `encoder` or `decoder`."""

    def __post_init__(self) -> None:
        at_least("train.steps", self.steps, 1)
        at_least("train.global_batch_size", self.global_batch_size, 1, 10**6)
        at_least("train.micro_batch_size", self.micro_batch_size, 1)
        at_least("train.ema_images", self.ema_images, 0)
        at_least("train.skip_limit", self.skip_limit, 1)
        check_parts("train.freeze", self.freeze)
        if {*PARTS} <= {*self.freeze}:
            raise UserError("train.freeze names both parts, so nothing would be trained: try train.freeze [encoder]")
        if self.max_minutes is not None:
            above_zero("train.max_minutes", self.max_minutes, 60)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Logging of losses, learning rates and speed to metrics.jsonl."""

    every: int = 50
    """Interval in steps."""

    def __post_init__(self) -> None:
        at_least("log.every", self.every, 1)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Scores over the test split, and a sample grid; also at step 0 and at the last step."""

    every: int = 500
    """Interval in steps."""
    metrics: list[str | dict[str, Any]] = dataclasses.field(default_factory=list)
    """Additional metrics: names, or {name: ..., key: value}, e.g. [lpips, {name: features, model: resnet18}]."""

    def __post_init__(self) -> None:
        at_least("evaluate.every", self.every, 1)
        for item in self.metrics:
            name = item.get("name") if isinstance(item, dict) else item
            if not isinstance(name, str):
                raise UserError(f"evaluate.metrics has {item}: write a name, or {{name: ..., key: value}}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints, with everything needed to resume; also at the last step, and when a run is stopped."""

    every: int = 500
    """Interval in steps."""
    keep: int = 2
    """Number of latest checkpoints to keep."""
    keep_every: int | None = None
    """Also keep checkpoints at multiples of this many steps. Default: none."""
    on_error: Literal["stop", "warn"] = "stop"
    """If a checkpoint, or anything else in the run folder, can't be written: `stop`, or `warn` and continue.
    Lines of metrics.jsonl are kept and written later. After the last step the run stops in any case."""

    def __post_init__(self) -> None:
        at_least("checkpoint.every", self.every, 1)
        at_least("checkpoint.keep", self.keep, 1)
        at_least("checkpoint.keep_every", self.keep_every, 1)


TRACKERS = ("tensorboard", "mlflow", "trackio", "aim", "comet_ml", "clearml", "dvclive", "swanlab")
"""Names of trackers, as accelerate has them: values of `track.to`."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Weights & Biases and other trackers; metrics.jsonl is always written."""

    wandb: Literal["off", "auto", "online", "offline"] = "off"
    """Log to W&B. `offline` writes files for `wandb sync`; `auto`: online if there is an API key."""
    to: list[str] | str = dataclasses.field(default_factory=list)
    """Other trackers to log to, a name or several: tensorboard, mlflow, trackio, aim, comet_ml, clearml, dvclive,
    swanlab."""
    project: str = "colordist"
    """Project of W&B and of other trackers that have projects."""
    entity: str | None = None
    """W&B user or team. Default: that of the API key."""
    group: str | None = None
    """W&B group, e.g. the seeds of one comparison."""
    tags: list[str] = dataclasses.field(default_factory=list)
    """W&B tags."""
    notes: str | None = None
    """W&B notes."""
    job_type: str = "train"
    """W&B job type."""
    snapshots: bool = False
    """Upload snapshots as artifacts, with the aliases `latest` and, for the best score, `best`."""

    def __post_init__(self) -> None:
        for name in self.trackers:
            if name == "wandb":
                raise UserError("track.to has wandb, which has a setting of its own: try track.wandb auto")
            if name not in TRACKERS:
                nearest, known = difflib.get_close_matches(name, TRACKERS, n=1), ", ".join(TRACKERS)
                way_out = f"did you mean {nearest[0]}?" if nearest else "name one, or leave it out"
                raise UserError(f"track.to: there is no {printable(name)!r} among {known}: {way_out}")

    @property
    def trackers(self) -> list[str]:
        """The names in ``to``, each once."""
        return list(dict.fromkeys([self.to] if isinstance(self.to, str) else self.to))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a run. Built by ``registry.make_config`` or the command line parser."""

    task: TaskSettings
    model: GeneratorSettings
    discriminator: DiscriminatorSettings | None
    """None for a task without discriminator."""
    data: DataConfig
    optimizer: dict[str, OptimizerConfig]
    """By name of the section."""
    seed: int = 0
    """Seed of initial weights, data order, augmentation and noise."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: resume the run in the run folder, if there is one. `never`: refuse to."""
    run: RunConfig = RunConfig()
    train: TrainConfig = TrainConfig()
    log: LogConfig = LogConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    track: TrackConfig = TrackConfig()

    def __post_init__(self) -> None:
        in_range("seed", self.seed, 0, 2**63 - 2)
        for name, optimizer in self.optimizer.items():
            optimizer.check(f"optimizer.{name}")
            for part in self.train.freeze:
                if part in getattr(optimizer, "lr_scales", {}):
                    raise UserError(f"optimizer.{name}.lr_scales has {part}, which train.freeze freezes: leave one out")
        for component in (self.data, self.model, self.discriminator, self.task):
            if component is not None:
                component.check(self)


COMMON: dict[str, type] = {
    "run": RunConfig,
    "train": TrainConfig,
    "log": LogConfig,
    "evaluate": EvaluateConfig,
    "checkpoint": CheckpointConfig,
    "track": TrackConfig,
}
"""Common sections, by name."""


def as_dict(config: Config) -> dict[str, Any]:
    """Settings as plain values by section, without sections that the task doesn't have."""
    return {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
