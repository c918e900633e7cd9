"""Settings, their defaults and their meaning: those that every run has. No torch, nothing else of ours.

Tasks, generators, discriminators and sources bring their own: each derives its settings from a base class in here, and
only the chosen component's keys exist (registry.py). Values that don't fit are refused with a line that names the key
and the way out.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Value = str | int | float | bool | list[Any] | dict[str, float] | None
Part = Literal["encoder", "decoder"]
"""Part of a generator."""
PARTS: tuple[Part, ...] = ("encoder", "decoder")


class UserError(Exception):
    """A user's mistake: one line saying what is wrong, where, and the way out. Exit code 2."""


class RunError(Exception):
    """A run that can't go on, through no mistake of the user's: one line. Exit code 1."""


def at_least(key: str, value: float | None, bound: float) -> None:
    """Raise UserError for a number below a bound, or not finite. None passes."""
    if value is not None and not bound <= value < float("inf"):
        raise UserError(f"{key} is {value}, but must be at least {bound}: try {key} {bound}")


def in_range(key: str, value: float, low: float, high: float) -> None:
    """Raise UserError for a number outside of [low, high]."""
    if not low <= value <= high:
        raise UserError(f"{key} is {value}, but must lie in [{low}, {high}]: try {key} {min(max(value, low), high)}")


def above_zero(key: str, value: float, example: float) -> None:
    """Raise UserError for a number that isn't positive and finite."""
    if not 0 < value < float("inf"):
        raise UserError(f"{key} is {value}, but must be above 0: try {key} {example}")


def divides(key: str, depth: int, size: int) -> None:
    """Raise UserError if a size can't be halved depth times, down to 2 pixels: one pixel can't be normalised."""
    if size % 2**depth or size < 2 ** (depth + 1):
        fitting = max((d for d in range(1, depth) if size % 2**d == 0 and size >= 2 ** (d + 1)), default=None)
        way_out = f"try {key} {fitting}" if fitting else f"try data.image_size {max(16, 2 ** (depth + 1))}"
        raise UserError(f"{key} is {depth}, but data.image_size {size} can't be halved that often: {way_out}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam and its learning rate, a pure function of the step."""

    lr: float = 1e-3
    """Peak learning rate."""
    beta1: float = 0.5
    """Adam's decay of the mean gradient."""
    beta2: float = 0.99
    """Adam's decay of the mean squared gradient."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay of the learning rate from its peak towards 0 at the last step."""
    warmup_steps: int = 50
    """Steps of linear warm-up from 0."""
    clip_norm: float | None = None
    """Gradient clipping: largest Euclidean norm over the network. Default: no clipping."""

    def check(self, key: str) -> None:
        """Raise UserError for a value out of range. key: the section, as in `optimizer.generator`."""
        above_zero(f"{key}.lr", self.lr, OptimizerConfig.lr)
        in_range(f"{key}.beta1", self.beta1, 0, 0.9999)
        in_range(f"{key}.beta2", self.beta2, 0, 0.99999)
        at_least(f"{key}.warmup_steps", self.warmup_steps, 0)
        if self.clip_norm is not None:
            above_zero(f"{key}.clip_norm", self.clip_norm, 1.0)


@dataclass(frozen=True, kw_only=True)
class GeneratorOptimizerConfig(OptimizerConfig):
    """The same, with parts of the network at other learning rates."""

    lr_scales: dict[Part, float] = dataclasses.field(default_factory=dict)
    """Factors of the learning rate by part, e.g. {encoder: 0.1}. Default: 1 everywhere."""

    def check(self, key: str) -> None:
        """Raise UserError for a value out of range."""
        super().check(key)
        _check_parts(f"{key}.lr_scales", [*self.lr_scales])
        for part, scale in self.lr_scales.items():
            if not 0 < scale < float("inf"):
                raise UserError(
                    f"{key}.lr_scales has {part} {scale}, but must be above 0: to freeze that part, try "
                    f"train.freeze [{part}]"
                )


def _check_parts(key: str, parts: list[Part]) -> None:
    for part in parts:
        if part not in PARTS:
            raise UserError(f"{key} has {part!r}, but the parts are {' and '.join(PARTS)}: try {PARTS[0]}")


# Base classes of components' settings.


@dataclass(frozen=True, kw_only=True)
class ComponentSettings:
    """Base of a component's settings."""

    operational: ClassVar[frozenset[str]] = frozenset()
    """Keys that are no part of a run's identity: they may change when it is continued."""

    def __post_init__(self) -> None:
        """Raise UserError for a value out of range."""

    def check(self, config: "Config") -> None:
        """Raise UserError where these settings don't fit the others."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings(ComponentSettings):
    """The task: networks, losses, phases."""

    optimizers: ClassVar[Mapping[str, type[OptimizerConfig]]] = {"generator": GeneratorOptimizerConfig}
    """The sections `optimizer.NAME` that the task has."""
    has_discriminator: ClassVar[bool] = False
    """Whether it has a section `discriminator`."""

    name: str = ""
    """Name of the task."""

    @property
    def gradient_penalties(self) -> dict[str, float]:
        """The weights of losses with second derivatives, by key: DeepSpeed and compiled networks have none."""
        return {}


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(ComponentSettings):
    """The generator."""

    name: str = ""
    """Architecture."""
    color_space: Literal["lab", "rgb"] = "lab"
    """Output: a,b, added to the Lab L of the grey pixel, or three RGB channels."""

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of, in pixels; at least twice this."""
        return 1

    @property
    def noise_size(self) -> int:
        """Length of the noise vector for each answer; 0 for a deterministic network."""
        return 0


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings(ComponentSettings):
    """The discriminator."""

    name: str = ""
    """Architecture."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(ComponentSettings):
    """The images."""

    source: str = ""
    """Source of the images."""
    image_size: int = 32
    """Width and height in pixels."""
    seed: int = 0
    """Seed of painted scenes, and of the subset where `data.fraction` is below 1."""
    fraction: float = 1.0
    """Fraction of the training images to use."""
    flip: bool = True
    """Random horizontal flips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("data.image_size", self.image_size, 16, 512)
        at_least("data.seed", self.seed, 0)
        if not 0 < self.fraction <= 1:
            raise UserError(f"data.fraction is {self.fraction}, but must be above 0 and at most 1: try data.fraction 1")


@dataclass(frozen=True, kw_only=True)
class FileDataConfig(DataConfig):
    """Images from files. Where they lie is no part of a run's identity; what is in them is."""

    operational: ClassVar[frozenset[str]] = frozenset({"root"})

    root: str = "data"
    """Folder of the images."""
    classes: list[str] | str = "all"
    """Names of the classes to use, e.g. [horse, cat], or `all`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.classes:
            raise UserError("data.classes is empty: name at least one class, or write data.classes all")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes to use; None for all of them."""
        if self.classes == "all":
            return None
        return (self.classes,) if isinstance(self.classes, str) else tuple(self.classes)


# Sections that every run has.


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The run folder, and how its processes watch one another."""

    dir: str | None = None
    """Run folder. Default: runs/<config name>-<hash of what is learned from what>."""
    heartbeat_timeout: float = 30.0
    """Seconds without a heartbeat after which a process counts as lost: all others stop."""
    stall_timeout: float = 600.0
    """Seconds that one operation may take while other processes wait, except reading and decoding images."""

    def __post_init__(self) -> None:
        at_least("run.heartbeat_timeout", self.heartbeat_timeout, 1)
        at_least("run.stall_timeout", self.stall_timeout, 1)


Compiled = Literal["off", "default", "graphs"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Steps, batches, precision."""

    steps: int = 3300
    """Training steps: each runs all phases on one global batch."""
    global_batch_size: int = 16
    """Images per step over all processes."""
    micro_batch_size: int | None = None
    """Most images per process in one forward pass; gradient accumulation follows from it. Default: no limit."""
    activation_checkpointing: bool = False
    """Recompute activations in backward instead of keeping them: less memory, more time, the same numbers."""
    precision: Literal["auto", "fp64", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision of the networks. `auto`: bf16 on GPUs that have it, else fp32."""
    deterministic: bool = False
    """Use deterministic algorithms only (slower on GPUs; on CPUs they always are)."""
    tf32: bool = False
    """Allow TF32 in fp32 matrix products and convolutions (NVIDIA GPUs since Ampere: faster)."""
    compile: Compiled = "off"
    """Compile the networks with torch.compile; `graphs`: and capture CUDA graphs."""
    nonfinite: Literal["skip", "stop"] = "skip"
    """On Inf or NaN in a gradient: `skip` that network's update and count it, or `stop` the run."""
    skip_limit: int = 20
    """Most consecutive skipped updates; more stop the run at the next log line."""
    max_minutes: float | None = None
    """Stop after this time, with a checkpoint, as a signal would; the same command continues. Default: no limit."""
    ema_images: int = 1000
    """Half-life, in images, of the generator's EMA weights, which are evaluated and saved; 0: off."""
    init_from: str | None = None
    """Snapshot, or run, to initialise the generator's weights from. Default: random weights."""
    init_strict: bool = True
    """Refuse a snapshot that doesn't fit `model`; `false` takes the weights that do."""
    freeze: list[Part] = dataclasses.field(default_factory=list)
    """Frozen parts of the generator: `encoder` or `decoder`."""

    def __post_init__(self) -> None:
        at_least("train.steps", self.steps, 1)
        at_least("train.global_batch_size", self.global_batch_size, 1)
        at_least("train.micro_batch_size", self.micro_batch_size, 1)
        at_least("train.ema_images", self.ema_images, 0)
        at_least("train.skip_limit", self.skip_limit, 1)
        _check_parts("train.freeze", self.freeze)
        if {*PARTS} <= {*self.freeze}:
            raise UserError("train.freeze names both parts, so nothing would be trained: try train.freeze [encoder]")
        if self.max_minutes is not None:
            above_zero("train.max_minutes", self.max_minutes, 60)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Losses, learning rates and speed in metrics.jsonl."""

    every: int = 50
    """Interval in steps."""

    def __post_init__(self) -> None:
        at_least("log.every", self.every, 1)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Scores over the whole test split, and a grid of samples. Always at the last step."""

    every: int = 500
    """Interval in steps."""
    metrics: list[str | dict[str, Any]] = dataclasses.field(default_factory=list)
    """Metrics beyond the standard set: names, or {name: ..., key: value}: [lpips, {name: classifier, folder: DIR}]."""

    def __post_init__(self) -> None:
        at_least("evaluate.every", self.every, 1)
        for item in self.metrics:
            name = item.get("name") if isinstance(item, dict) else item
            if not isinstance(name, str):
                raise UserError(f"evaluate.metrics has {item}: write a name, or {{name: ..., key: value}}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Everything needed to resume. Always written at the last step."""

    every: int = 500
    """Interval in steps."""
    keep: int = 2
    """How many of the newest to keep."""
    keep_every: int | None = None
    """Also keep those whose step is a multiple of this. Default: none."""
    on_error: Literal["stop", "warn"] = "stop"
    """When one can't be written, e.g. on a full disk: `stop` the run, or `warn` and go on."""

    def __post_init__(self) -> None:
        at_least("checkpoint.every", self.every, 1)
        at_least("checkpoint.keep", self.keep, 1)
        at_least("checkpoint.keep_every", self.keep_every, 1)


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Weights & Biases. metrics.jsonl is written in any case."""

    wandb: Literal["off", "auto", "online", "offline"] = "off"
    """Log to W&B. `offline` writes files for `wandb sync`; `auto`: online if there is an API key."""
    project: str = "colordist"
    """W&B project."""
    entity: str | None = None
    """W&B user or team. Default: the key's."""
    group: str | None = None
    """W&B group, e.g. the seeds of one comparison."""
    tags: list[str] = dataclasses.field(default_factory=list)
    """W&B tags."""
    notes: str | None = None
    """W&B notes."""
    job_type: str = "train"
    """W&B job type."""
    snapshots: bool = False
    """Upload each snapshot as an artifact with the aliases `latest` and, for the best score, `best`."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run. Made by ``registry.make_config``, which knows the components, or by the command line."""

    task: TaskSettings
    model: GeneratorSettings
    discriminator: DiscriminatorSettings | None
    """None where the task has none."""
    data: DataConfig
    optimizer: dict[str, OptimizerConfig]
    """By the name of the section."""
    seed: int = 0
    """Seed of weights, order of images and augmentation."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: continue the run in the run folder, if there is one. `never`: refuse to."""
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
"""The sections that every run has, by name."""


def as_dict(config: Config) -> dict[str, Any]:
    """The settings as plain values, in sections, without sections that the task doesn't have."""
    return {name: value for name, value in dataclasses.asdict(config).items() if value is not None}


def flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """``{"train": {"steps": 5}}`` to ``{"train.steps": 5}``."""
    flat: dict[str, Value] = {}
    for key, value in section.items():
        if isinstance(value, dict) and key != "lr_scales":  # which is a setting, not a section
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
