"""Every setting, its default and its meaning. Imports nothing of ours and no torch.

The defaults are the quickstart: a small conditional GAN on the synthetic source. Files in ``configs/`` say what else
there is to learn. Values that don't fit are refused here, with a line that names the key and the way out.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

Value = str | int | float | bool | list[Any] | None


class UserError(Exception):
    """A mistake of the user's: one line saying what is wrong, where, and the way out. Exit code 2."""


class RunError(Exception):
    """A run that can't go on, through no mistake of the user's: one line. Exit code 1."""


def _at_least(key: str, value: float | None, bound: float) -> None:
    if value is not None and not bound <= value < float("inf"):
        raise UserError(f"{key} is {value}, but must be at least {bound}: try {key} {bound}")


def _in_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{key} is {value}, but must lie in [{low}, {high}]: try {key} {min(max(value, low), high)}")


def _above_zero(key: str, value: float, example: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{key} is {value}, but must be above 0: try {key} {example}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run lives."""

    dir: str | None = None
    """Run folder. Default: runs/<config name>-<hash of the learning keys>."""
    silence: float = 30.0
    """Seconds without a sign of life after which a process counts as lost: all others stop, or take its run over."""
    patience: float = 600.0
    """Seconds that a process may take for one thing while others wait, but for fetching and decoding images."""

    def __post_init__(self) -> None:
        _at_least("run.silence", self.silence, 1)
        _at_least("run.patience", self.patience, 1)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images."""

    source: Literal["synthetic", "cifar10", "folder"] = "synthetic"
    """Where images come from. `synthetic` is painted on the spot and needs no download."""
    root: str = "data"
    """Folder of the images (`folder`) or of the downloaded archive (`cifar10`)."""
    classes: list[str] | str = "all"
    """Names of the classes to use, e.g. [horse, cat], or `all`."""
    image_size: int = 32
    """Width and height in pixels."""
    seed: int = 0
    """Seed of the painted scenes (`synthetic` only)."""
    train_images: int = 4096
    """How many scenes to learn from (`synthetic` only)."""
    test_images: int = 512
    """How many scenes to be scored on (`synthetic` only)."""
    flip: bool = True
    """Mirror each training image left to right with probability one half."""

    def __post_init__(self) -> None:
        _in_range("data.image_size", self.image_size, 16, 512)
        _at_least("data.seed", self.seed, 0)
        _at_least("data.train_images", self.train_images, 1)
        _at_least("data.test_images", self.test_images, 1)
        if not self.classes:
            raise UserError("data.classes is empty: name at least one class, or write data.classes all")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes to use; None for all of them."""
        if self.classes == "all":
            return None
        return (self.classes,) if isinstance(self.classes, str) else tuple(self.classes)


Norm = Literal["group", "instance", "batch", "none"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The generator: the network that colours."""

    name: Literal["unet", "autoencoder"] = "unet"
    """Architecture: `unet` has skip connections, `autoencoder` has none."""
    color_space: Literal["lab", "rgb"] = "lab"
    """What it answers: a,b added to the grey's Lab L, or three channels."""
    width: int = 16
    """Channels at full resolution; doubled at each level down, up to eight times this."""
    depth: int = 3
    """How often the resolution is halved."""
    bottleneck: int | None = None
    """Channels at the lowest resolution. Default: what width and depth give."""
    norm: Norm = "group"
    """Normalisation after each convolution."""

    def __post_init__(self) -> None:
        _at_least("model.width", self.width, 4)
        _in_range("model.depth", self.depth, 1, 8)
        _at_least("model.bottleneck", self.bottleneck, 2)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The discriminator: sees grey and colour, says real or fake."""

    width: int = 16
    """Channels of the first layer; doubled at each level down, up to eight times this."""
    depth: int = 3
    """How often the resolution is halved."""
    output: Literal["patch", "image"] = "patch"
    """One logit for each patch, or one for the whole image."""
    norm: Norm = "none"
    """Normalisation after each convolution but the first."""
    spectral_norm: bool = True
    """Divide each weight by its largest singular value (arXiv 1802.05957)."""

    def __post_init__(self) -> None:
        _at_least("discriminator.width", self.width, 4)
        _in_range("discriminator.depth", self.depth, 1, 8)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What the generator is asked to make small."""

    pixel: Literal["l1", "l2"] = "l1"
    """Distance between its colours and the true ones."""
    pixel_weight: float = 1.0
    """Weight of that distance (`cgan`; the `autoencoder` has nothing to weigh it against)."""
    difference_weight: float = 10.0
    """Weight of the same distance between differences of neighbouring pixels (arXiv 1511.05440; `cgan`)."""
    adversarial_weight: float = 1.0
    """Weight of fooling the discriminator (`cgan`)."""
    label_smoothing: float = 0.0
    """Tell the discriminator that real is 1 minus this (`cgan`, one-sided)."""
    warmup_steps: int = 300
    """Steps at the start in which only the generator learns, from the pixel distance alone (`cgan`)."""

    def __post_init__(self) -> None:
        _at_least("loss.pixel_weight", self.pixel_weight, 0)
        _at_least("loss.difference_weight", self.difference_weight, 0)
        _at_least("loss.adversarial_weight", self.adversarial_weight, 0)
        _in_range("loss.label_smoothing", self.label_smoothing, 0, 0.5)
        _at_least("loss.warmup_steps", self.warmup_steps, 0)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam and its learning rate, a pure function of the step."""

    lr: float = 1e-3
    """Highest learning rate."""
    beta1: float = 0.5
    """Adam's decay of the mean gradient."""
    beta2: float = 0.99
    """Adam's decay of the mean squared gradient."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls from its highest value towards 0 at the last step."""
    warmup_steps: int = 50
    """Steps over which the rate first rises from 0."""
    clip_norm: float | None = None
    """Longest gradient (Euclidean norm over the network); longer ones are shortened. Default: no limit."""


@dataclass(frozen=True, kw_only=True)
class OptimizersConfig:
    """One optimizer a network."""

    generator: OptimizerConfig = OptimizerConfig()
    """The generator's optimizer."""
    discriminator: OptimizerConfig = OptimizerConfig()
    """The discriminator's optimizer (`cgan`)."""

    def __post_init__(self) -> None:
        for network in dataclasses.fields(self):
            key, optimizer = f"optimizer.{network.name}", getattr(self, network.name)
            _above_zero(f"{key}.lr", optimizer.lr, OptimizerConfig.lr)
            _in_range(f"{key}.beta1", optimizer.beta1, 0, 0.9999)
            _in_range(f"{key}.beta2", optimizer.beta2, 0, 0.99999)
            _at_least(f"{key}.warmup_steps", optimizer.warmup_steps, 0)
            if optimizer.clip_norm is not None:
                _above_zero(f"{key}.clip_norm", optimizer.clip_norm, 1.0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, and in what portions."""

    steps: int = 3300
    """Steps: passes through all phases on one global batch."""
    global_batch_size: int = 16
    """Images a step over all processes together."""
    micro_batch_size: int | None = None
    """Most images a process computes at once; accumulation follows from it. Default: no limit."""
    precision: Literal["auto", "fp64", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the networks. `auto`: bf16 on GPUs that have it, else fp32."""
    deterministic: bool = False
    """Use deterministic algorithms only (slower on GPUs; on CPUs they always are)."""
    tf32: bool = False
    """Let fp32 multiply in TF32, with 10 bits of mantissa instead of 23 (NVIDIA GPUs since Ampere: faster)."""
    nonfinite: Literal["skip", "stop"] = "skip"
    """When a gradient is infinite or no number: `skip` that network's update and count it, or `stop` the run."""
    skip_limit: int = 20
    """How many updates in a row may be skipped; more stop the run, at the next line of the log."""
    max_minutes: float | None = None
    """Stop after this time, with a checkpoint, as a signal would; the same command continues. Default: no limit."""
    ema_images: int = 1000
    """Half-life, in images, of the generator's averaged weights, which are what is scored and saved; 0: off."""

    def __post_init__(self) -> None:
        _at_least("train.steps", self.steps, 1)
        _at_least("train.global_batch_size", self.global_batch_size, 1)
        _at_least("train.micro_batch_size", self.micro_batch_size, 1)
        _at_least("train.ema_images", self.ema_images, 0)
        _at_least("train.skip_limit", self.skip_limit, 1)
        if self.max_minutes is not None:
            _above_zero("train.max_minutes", self.max_minutes, 60)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Losses, rates and speed into metrics.jsonl."""

    every: int = 50
    """Interval in steps."""

    def __post_init__(self) -> None:
        _at_least("log.every", self.every, 1)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Scores over the whole test split, and a grid of samples. Always done at the last step."""

    every: int = 500
    """Interval in steps."""

    def __post_init__(self) -> None:
        _at_least("evaluate.every", self.every, 1)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Everything needed to continue. Always written at the last step."""

    every: int = 500
    """Interval in steps."""
    keep: int = 2
    """How many of the newest to keep."""
    keep_every: int | None = None
    """Keep besides, for ever, those whose step is a multiple of this. Default: none."""
    on_error: Literal["stop", "warn"] = "stop"
    """When one can't be written, because the disk is full, say: `stop` the run, or `warn` and go on."""

    def __post_init__(self) -> None:
        _at_least("checkpoint.every", self.every, 1)
        _at_least("checkpoint.keep", self.keep, 1)
        _at_least("checkpoint.keep_every", self.keep_every, 1)


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Weights & Biases. metrics.jsonl is written in any case."""

    wandb: Literal["off", "auto", "online", "offline"] = "off"
    """Whether the run is shown there too. `offline` writes files for `wandb sync`; `auto`: online if there is a key."""
    project: str = "colordist"
    """Project there."""
    entity: str | None = None
    """User or team there. Default: the key's."""
    group: str | None = None
    """Group of runs there, e.g. the seeds of one comparison."""
    tags: list[str] = dataclasses.field(default_factory=list)
    """Tags there."""
    notes: str | None = None
    """A remark there."""
    job_type: str = "train"
    """Kind of run there."""
    snapshots: bool = False
    """Send each snapshot there, too: an artifact with the aliases `latest` and, where it scored best, `best`."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run: what is learned, from what, how and for how long; and how it is watched."""

    task: Literal["autoencoder", "cgan"] = "cgan"
    """What is learned: colours near the true ones, or colours that a discriminator takes for true."""
    seed: int = 0
    """Seed of weights, order of images and augmentation."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: continue the run in the run folder, if there is one. `never`: refuse to."""
    run: RunConfig = RunConfig()
    """Where the run lives."""
    data: DataConfig = DataConfig()
    """Which images."""
    model: ModelConfig = ModelConfig()
    """The generator: the network that colours."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The discriminator (`cgan`)."""
    loss: LossConfig = LossConfig()
    """What the generator is asked to make small."""
    optimizer: OptimizersConfig = OptimizersConfig()
    """One optimizer a network."""
    train: TrainConfig = TrainConfig()
    """How long, and in what portions."""
    log: LogConfig = LogConfig()
    """Losses, rates and speed."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Scores and samples."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Everything needed to continue."""
    track: TrackConfig = TrackConfig()
    """Weights & Biases."""

    def __post_init__(self) -> None:
        _in_range("seed", self.seed, 0, 2**63 - 2)
        _divides("model.depth", self.model.depth, self.data.image_size)
        if self.task == "cgan":
            _divides("discriminator.depth", self.discriminator.depth, self.data.image_size)
            if self.loss.warmup_steps >= self.train.steps:
                raise UserError(
                    f"loss.warmup_steps is {self.loss.warmup_steps}, but train.steps {self.train.steps}, so the "
                    f"discriminator would never learn: try loss.warmup_steps {self.train.steps // 4}"
                )
            if self.loss.pixel_weight == 0 and self.loss.warmup_steps > 0:
                raise UserError(
                    f"loss.warmup_steps is {self.loss.warmup_steps}, but with loss.pixel_weight 0 there is nothing to "
                    "learn in it: try loss.warmup_steps 0"
                )


def _divides(key: str, depth: int, size: int) -> None:
    """A size must be halved depth times, down to at least 2 pixels: normalisation of one pixel leaves nothing."""
    if size % 2**depth or size < 2 ** (depth + 1):
        fitting = max((d for d in range(1, depth) if size % 2**d == 0 and size >= 2 ** (d + 1)), default=None)
        way_out = f"try {key} {fitting}" if fitting else f"try data.image_size {max(16, 2 ** (depth + 1))}"
        raise UserError(f"{key} is {depth}, but data.image_size {size} can't be halved that often: {way_out}")


# A run's identity is all keys but these, which may change when a run is continued.
OPERATIONAL = (
    *("resume", "run.", "log.", "evaluate.", "checkpoint.", "track."),
    *("train.micro_batch_size", "train.nonfinite", "train.skip_limit", "train.max_minutes"),
)


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Value]:
    """``{"train": {"steps": 5}}`` to ``{"train.steps": 5}``."""
    flat: dict[str, Value] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def learning_keys(config: dict[str, Any]) -> dict[str, Value]:
    """The settings that make up a run's identity, from ``dataclasses.asdict(config)`` or a file with the same."""
    return {key: value for key, value in flatten(config).items() if not key.startswith(OPERATIONAL)}


def fingerprint(config: Config) -> str:
    """Eight hexadecimal digits that stand for the learning keys: the same command gives the same ones."""
    return _digest(learning_keys(dataclasses.asdict(config)))


def identity(config: Config) -> str:
    """As ``fingerprint``, but for how long: it stays the same when a run is asked for more steps."""
    keys = learning_keys(dataclasses.asdict(config))
    return _digest({key: value for key, value in keys.items() if key != "train.steps"})


def _digest(keys: dict[str, Value]) -> str:
    return hashlib.blake2b(json.dumps(keys, sort_keys=True).encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class BatchArithmetic:
    """How a global batch is divided."""

    global_batch_size: int
    processes: int
    per_process: int
    """Images a process takes of each global batch."""
    accumulation: int
    """Micro-batches into which it cuts them."""

    def __str__(self) -> str:
        micro = -(-self.per_process // self.accumulation)
        return (
            f"{self.global_batch_size} images a step = {self.processes} processes x {self.per_process} images, "
            f"in {self.accumulation} micro-batches of at most {micro}"
        )


def batch_arithmetic(train: TrainConfig, processes: int) -> BatchArithmetic:
    """Divide the global batch among processes. Raises UserError, naming what would fit, if it doesn't divide."""
    total = train.global_batch_size
    if total % processes:
        batches = [size for size in (total // processes * processes, (total // processes + 1) * processes) if size]
        counts = [count for count in range(1, min(total, 2 * processes) + 1) if total % count == 0]
        raise UserError(
            f"train.global_batch_size is {total}, which {processes} processes can't share equally: try "
            f"{' or '.join(map(str, batches))}, or one of {', '.join(map(str, counts))} processes"
        )
    share = total // processes
    return BatchArithmetic(total, processes, share, -(-share // min(train.micro_batch_size or share, share)))


def divide_batches(config: Config, processes: int) -> BatchArithmetic:
    """``batch_arithmetic`` of a config. Raises UserError also where dividing a batch would change what is learned."""
    batches = batch_arithmetic(config.train, processes)
    norms = {"model.norm": config.model.norm}
    if config.task == "cgan":
        norms["discriminator.norm"] = config.discriminator.norm
    for key, norm in norms.items():
        if norm == "batch" and batches.accumulation > 1:
            raise UserError(
                f"{key} is batch, whose statistics need a whole batch at once, but train.micro_batch_size "
                f"{config.train.micro_batch_size} cuts it into {batches.accumulation}: try {key} group, or "
                f"train.micro_batch_size {batches.per_process}"
            )
    return batches
