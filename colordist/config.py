"""Every setting, its default and its meaning. Imports nothing of ours and no torch.

The defaults are the quickstart: a small conditional GAN on the synthetic source. Files in ``configs/`` say what else
there is to learn. Values that don't fit are refused here, with a line that names the key and the way out.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

Value = str | int | float | bool | list[Any] | dict[str, float] | None
Part = Literal["encoder", "decoder"]
"""Part of a generator: what reads the image, and what makes an answer of that."""
PARTS: tuple[Part, ...] = ("encoder", "decoder")


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
    heartbeat_timeout: float = 30.0
    """Seconds without a sign of life after which a process counts as lost: all others stop, or take its run over."""
    stall_timeout: float = 600.0
    """Seconds that a process may take for one thing while others wait, but for fetching and decoding images."""

    def __post_init__(self) -> None:
        _at_least("run.heartbeat_timeout", self.heartbeat_timeout, 1)
        _at_least("run.stall_timeout", self.stall_timeout, 1)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images."""

    source: Literal["synthetic", "cifar10", "cifar100", "stl10", "folder", "shards"] = "synthetic"
    """Where images come from. `synthetic` is painted on the spot and needs no download."""
    root: str = "data"
    """Folder of the images (`folder`, `shards`: or URL) or of the archive (`cifar10`, `cifar100`, `stl10`)."""
    classes: list[str] | str = "all"
    """Names of the classes to use, e.g. [horse, cat], or `all`."""
    image_size: int = 32
    """Width and height in pixels."""
    seed: int = 0
    """Seed of the painted scenes (`synthetic`), and of the choice where `data.fraction` leaves images out."""
    train_images: int = 4096
    """How many scenes to learn from (`synthetic` only)."""
    test_images: int = 512
    """How many scenes to be scored on (`synthetic` only)."""
    fraction: float = 1.0
    """Share of the training images to learn from."""
    flip: bool = True
    """Mirror each training image left to right with probability one half."""
    shuffle_shards: int = 8
    """How many shards are shuffled together (`shards` only); all of them: a full shuffle."""
    workers: int = 2
    """Processes that read and decode images, for each process that trains; 0: that one itself (`shards` only)."""

    def __post_init__(self) -> None:
        _at_least("data.shuffle_shards", self.shuffle_shards, 1)
        _at_least("data.workers", self.workers, 0)
        if self.source == "shards" and "://" in self.root and not self.root.startswith(("http://", "https://")):
            raise UserError(
                f"data.root is {self.root}, but shards come from a folder, http or https: fetch them some other way, "
                "and name their folder"
            )
        _in_range("data.image_size", self.image_size, 16, 512)
        _at_least("data.seed", self.seed, 0)
        _at_least("data.train_images", self.train_images, 1)
        _at_least("data.test_images", self.test_images, 1)
        if not 0 < self.fraction <= 1:
            raise UserError(f"data.fraction is {self.fraction}, but must be above 0 and at most 1: try data.fraction 1")
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
    blocks: int = 0
    """Residual blocks at each resolution, once down and once up; 0: one plain convolution instead (`unet`)."""
    attention_level: int | None = None
    """Resolution at which pixels see each other, once down and once up: halved so often (`unet`). Default: none."""

    noise: int = 0
    """Numbers of noise that it takes with each image: the largest chooses one of so many palettes. 0: none (`unet`)."""

    def __post_init__(self) -> None:
        _at_least("model.blocks", self.blocks, 0)
        _at_least("model.noise", self.noise, 0)
        if self.noise == 1:
            raise UserError("model.noise is 1, which leaves no choice: try model.noise 6, or model.noise 0")
        if self.noise and self.name != "unet":
            raise UserError(
                f"model.noise is {self.noise}, but model.name {self.name} has no use for it: try model.name unet, or "
                "model.noise 0"
            )
        if self.attention_level is not None:
            _in_range("model.attention_level", self.attention_level, 0, self.depth)
        if self.name != "unet" and (self.blocks or self.attention_level is not None):
            key = "model.blocks" if self.blocks else "model.attention_level"
            raise UserError(f"{key} is set, but model.name {self.name} has none: try model.name unet, or leave it out")
        _at_least("model.width", self.width, 4)
        _in_range("model.depth", self.depth, 1, 8)
        _at_least("model.bottleneck", self.bottleneck, 2)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The discriminator: says real or fake of grey and colour (`cgan`), or of one kind of image alone (`cyclegan`)."""

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


AUGMENTATIONS = ("translation", "cutout")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What the generator is asked to make small."""

    pixel: Literal["l1", "l2"] = "l1"
    """Distance between its colours and the true ones; `cyclegan`: between an image and what comes back of it."""
    pixel_weight: float = 1.0
    """Weight of that distance (`cgan`; the `autoencoder` has nothing to weigh it against)."""
    gradient_loss_weight: float = 10.0
    """Weight of the same distance between differences of neighbouring pixels (arXiv 1511.05440; `cgan`)."""
    adversarial: Literal["bce", "relativistic"] = "bce"
    """Tell real from fake, or the real one of a pair from the fake one (arXiv 1807.00734, 2501.05441; `cgan`)."""
    adversarial_weight: float = 1.0
    """Weight of fooling the discriminator (`cgan`, `cyclegan`)."""
    label_smoothing: float = 0.0
    """Tell the discriminator that real is 1 minus this (`cgan`, `cyclegan`, one-sided)."""
    r1_weight: float = 0.0
    """Twice the weight of the discriminator's squared gradient at real colours (arXiv 1801.04406: gamma; `cgan`)."""
    r2_weight: float = 0.0
    """The same at fake colours (`cgan`)."""
    augment: list[str] = dataclasses.field(default_factory=list)
    """What the discriminator's images go through: `translation`, `cutout` or both (arXiv 2006.10738; `cgan`)."""
    candidates: int = 1
    """Answers to each image, of which the one nearest to the true colours is asked to be near (arXiv 1806.07772)."""
    cycle_weight: float = 10.0
    """Weight of an image's distance from itself, there and back again, either way (`cyclegan`)."""
    identity_weight: float = 5.0
    """Weight of the distance between a grey image and what the decolorizer makes of it (`cyclegan`)."""
    image_buffer_slots: int = 3
    """Older generated images kept for each place in the global batch, to be judged again; 0: off (`cyclegan`)."""
    warmup_steps: int = 300
    """Steps at the start without discriminators: pixel distance (`cgan`), cycle and identity (`cyclegan`) alone."""

    def __post_init__(self) -> None:
        _at_least("loss.pixel_weight", self.pixel_weight, 0)
        _at_least("loss.gradient_loss_weight", self.gradient_loss_weight, 0)
        _at_least("loss.adversarial_weight", self.adversarial_weight, 0)
        _in_range("loss.label_smoothing", self.label_smoothing, 0, 0.5)
        _at_least("loss.candidates", self.candidates, 1)
        _at_least("loss.r1_weight", self.r1_weight, 0)
        _at_least("loss.r2_weight", self.r2_weight, 0)
        if self.adversarial == "relativistic" and self.label_smoothing > 0:
            raise UserError(
                f"loss.label_smoothing is {self.label_smoothing}, but loss.adversarial relativistic has no labels: "
                "try loss.label_smoothing 0"
            )
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise UserError(f"loss.augment has {name}: try {' or '.join(AUGMENTATIONS)}")
        _at_least("loss.cycle_weight", self.cycle_weight, 0)
        _at_least("loss.identity_weight", self.identity_weight, 0)
        _at_least("loss.image_buffer_slots", self.image_buffer_slots, 0)
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
class GeneratorOptimizerConfig(OptimizerConfig):
    """The same for a network that has parts."""

    lr_scales: dict[Part, float] = dataclasses.field(default_factory=dict)
    """What the learning rate is multiplied by in parts of the network, e.g. {encoder: 0.1}. Default: nowhere."""


@dataclass(frozen=True, kw_only=True)
class OptimizersConfig:
    """One optimizer a network."""

    generator: GeneratorOptimizerConfig = GeneratorOptimizerConfig()
    """The generator's optimizer, and the decolorizer's (`cyclegan`)."""
    discriminator: OptimizerConfig = OptimizerConfig()
    """The discriminator's optimizer (`cgan`), and the grey discriminator's (`cyclegan`)."""

    def __post_init__(self) -> None:
        for network in dataclasses.fields(self):
            key, optimizer = f"optimizer.{network.name}", getattr(self, network.name)
            _above_zero(f"{key}.lr", optimizer.lr, OptimizerConfig.lr)
            _in_range(f"{key}.beta1", optimizer.beta1, 0, 0.9999)
            _in_range(f"{key}.beta2", optimizer.beta2, 0, 0.99999)
            _at_least(f"{key}.warmup_steps", optimizer.warmup_steps, 0)
            if optimizer.clip_norm is not None:
                _above_zero(f"{key}.clip_norm", optimizer.clip_norm, 1.0)
        for part, factor in self.generator.lr_scales.items():
            if not 0 < factor < float("inf"):
                raise UserError(
                    f"optimizer.generator.lr_scales has {part} {factor}, but must be above 0: to hold that part, "
                    f"try train.freeze [{part}]"
                )


Compiled = Literal["off", "default", "graphs"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, and in what portions."""

    steps: int = 3300
    """Steps: passes through all phases on one global batch."""
    global_batch_size: int = 16
    """Images a step over all processes together."""
    micro_batch_size: int | None = None
    """Most images a process computes at once; accumulation follows from it. Default: no limit."""
    activation_checkpointing: bool = False
    """Compute activations again in backward instead of keeping them: less memory, more time, the same numbers."""
    precision: Literal["auto", "fp64", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the networks. `auto`: bf16 on GPUs that have it, else fp32."""
    deterministic: bool = False
    """Use deterministic algorithms only (slower on GPUs; on CPUs they always are)."""
    tf32: bool = False
    """Let fp32 multiply in TF32, with 10 bits of mantissa instead of 23 (NVIDIA GPUs since Ampere: faster)."""
    compile: Compiled = "off"
    """Have PyTorch compile the networks; `graphs`: and record what a GPU is told, to play it again (CUDA graphs)."""
    nonfinite: Literal["skip", "stop"] = "skip"
    """When a gradient is infinite or no number: `skip` that network's update and count it, or `stop` the run."""
    skip_limit: int = 20
    """How many updates in a row may be skipped; more stop the run, at the next line of the log."""
    max_minutes: float | None = None
    """Stop after this time, with a checkpoint, as a signal would; the same command continues. Default: no limit."""
    ema_images: int = 1000
    """Half-life, in images, of the generator's averaged weights, which are what is scored and saved; 0: off."""
    init_from: str | None = None
    """Snapshot whose weights the generator begins with, or a run, for its latest. Default: random weights."""
    init_strict: bool = True
    """Refuse a snapshot that doesn't fit `model`; `false` takes the weights that do."""
    freeze: list[Part] = dataclasses.field(default_factory=list)
    """Parts of the generator that don't learn: `encoder` or `decoder`."""

    def __post_init__(self) -> None:
        _at_least("train.steps", self.steps, 1)
        _at_least("train.global_batch_size", self.global_batch_size, 1)
        _at_least("train.micro_batch_size", self.micro_batch_size, 1)
        _at_least("train.ema_images", self.ema_images, 0)
        _at_least("train.skip_limit", self.skip_limit, 1)
        if {*PARTS} <= {*self.freeze}:
            raise UserError("train.freeze names both parts, so nothing would learn: try train.freeze [encoder]")
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
    metrics: list[str | dict[str, Any]] = dataclasses.field(default_factory=list)
    """Metrics beyond the standard set: names, or {name: ..., key: value}: [lpips, {name: classifier, folder: DIR}]."""

    def __post_init__(self) -> None:
        _at_least("evaluate.every", self.every, 1)
        for item in self.metrics:
            name = item.get("name") if isinstance(item, dict) else item
            if not isinstance(name, str):
                raise UserError(f"evaluate.metrics has {item}: write a name, or {{name: ..., key: value}}")


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


ADVERSARIAL = ("cgan", "cyclegan")
"""Tasks with a discriminator."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run: what is learned, from what, how and for how long; and how it is watched."""

    task: Literal["autoencoder", "cgan", "cyclegan"] = "cgan"
    """What is learned: colours near the true ones; those that a discriminator takes for true; those without pairs."""
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
    """The discriminator (`cgan`), or both of them (`cyclegan`)."""
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
        lr_scales = self.optimizer.generator.lr_scales
        for key, parts in ("train.freeze", self.train.freeze), ("optimizer.generator.lr_scales", [*lr_scales]):
            for part in parts:
                if part not in PARTS:
                    raise UserError(f"{key} has {part!r}, but the parts are {' and '.join(PARTS)}: try {PARTS[0]}")
        for part in self.train.freeze:
            if part in lr_scales:
                raise UserError(
                    f"optimizer.generator.lr_scales has {part}, which train.freeze holds: leave one of the two"
                )
        _divides("model.depth", self.model.depth, self.data.image_size)
        if self.loss.candidates > 1 and self.model.noise == 0:
            raise UserError(
                f"loss.candidates is {self.loss.candidates}, but without noise all answers are the same: try "
                "model.noise 6"
            )
        if self.train.compile != "off" and self.loss.r1_weight + self.loss.r2_weight > 0:
            raise UserError(
                f"train.compile is {self.train.compile}, but PyTorch doesn't differentiate twice what it has compiled, "
                "as loss.r1_weight and loss.r2_weight ask for: try train.compile off"
            )
        if self.train.activation_checkpointing:
            for key, norm in self.norms.items():
                if norm == "batch":
                    raise UserError(
                        f"{key} is batch, which follows the images that it sees, but with "
                        f"train.activation_checkpointing it sees them twice: try {key} group, or train.activation_checkpointing false"
                    )
        if self.task == "cyclegan":
            self._check_cyclegan()
        if self.task in ADVERSARIAL:
            _divides("discriminator.depth", self.discriminator.depth, self.data.image_size)
            if self.loss.warmup_steps >= self.train.steps:
                raise UserError(
                    f"loss.warmup_steps is {self.loss.warmup_steps}, but train.steps {self.train.steps}, so the "
                    f"discriminator would never learn: try loss.warmup_steps {self.train.steps // 4}"
                )
            weight = "pixel_weight" if self.task == "cgan" else "cycle_weight"
            if getattr(self.loss, weight) == 0 and self.loss.warmup_steps > 0:
                raise UserError(
                    f"loss.warmup_steps is {self.loss.warmup_steps}, but with loss.{weight} 0 there is nothing to "
                    "learn in it: try loss.warmup_steps 0"
                )
            if self.discriminator.norm == "batch" and (self.loss.r1_weight > 0 or self.loss.r2_weight > 0):
                key = "loss.r1_weight" if self.loss.r1_weight > 0 else "loss.r2_weight"
                raise UserError(
                    f"{key} weighs each image's own gradient, but with discriminator.norm batch an image has none of "
                    "its own: try discriminator.norm group"
                )

    @property
    def norms(self) -> dict[str, Norm]:
        """How the task's networks are normalised, by key."""
        norms = {"model.norm": self.model.norm}
        return norms | {"discriminator.norm": self.discriminator.norm} if self.task in ADVERSARIAL else norms

    def _check_cyclegan(self) -> None:
        """What only pairs make sense of, or nobody has needed yet."""
        for key, value, usual in (
            ("model.noise", self.model.noise, 0),
            ("loss.adversarial", self.loss.adversarial, "bce"),
            ("loss.r1_weight", self.loss.r1_weight, 0.0),
            ("loss.r2_weight", self.loss.r2_weight, 0.0),
            ("loss.augment", self.loss.augment, []),
        ):
            if value != usual:
                raise UserError(f"{key} is {value}, which task cyclegan can't: try {key} {usual}, or task cgan")


def _divides(key: str, depth: int, size: int) -> None:
    """A size must be halved depth times, down to at least 2 pixels: normalisation of one pixel leaves nothing."""
    if size % 2**depth or size < 2 ** (depth + 1):
        fitting = max((d for d in range(1, depth) if size % 2**d == 0 and size >= 2 ** (d + 1)), default=None)
        way_out = f"try {key} {fitting}" if fitting else f"try data.image_size {max(16, 2 ** (depth + 1))}"
        raise UserError(f"{key} is {depth}, but data.image_size {size} can't be halved that often: {way_out}")


# A run's identity is all keys but these, which may change when a run is continued.
OPERATIONAL = (
    *("resume", "run.", "log.", "evaluate.", "checkpoint.", "track."),
    *("data.workers", "train.micro_batch_size", "train.activation_checkpointing"),
    *("train.nonfinite", "train.skip_limit", "train.max_minutes"),
)


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Value]:
    """``{"train": {"steps": 5}}`` to ``{"train.steps": 5}``."""
    flat: dict[str, Value] = {}
    for key, value in section.items():
        if isinstance(value, dict) and key != "lr_scales":  # which is a setting, not a section
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def learning_keys(config: dict[str, Any]) -> dict[str, Value]:
    """The settings that make up a run's identity, from ``dataclasses.asdict(config)`` or a file with the same.

    A file that an older version wrote lacks the newest: those have their defaults, which change nothing.
    """
    whole = flatten(dataclasses.asdict(Config())) | flatten(config)
    return {key: value for key, value in whole.items() if not key.startswith(OPERATIONAL)}


def fingerprint(config: Config) -> str:
    """Eight hexadecimal digits that stand for the learning keys: the same command gives the same ones."""
    return _digest(_chosen(config))


def identity(config: Config) -> str:
    """As ``fingerprint``, but for how long: it stays the same when a run is asked for more steps."""
    return _digest({key: value for key, value in _chosen(config).items() if key != "train.steps"})


def _chosen(config: Config) -> dict[str, Value]:
    """The learning keys that aren't at their defaults: settings that are added later change no run's fingerprint."""
    usual = learning_keys({})
    return {key: value for key, value in learning_keys(dataclasses.asdict(config)).items() if value != usual[key]}


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
    for key, norm in config.norms.items():
        if norm == "batch" and batches.accumulation > 1:
            raise UserError(
                f"{key} is batch, whose statistics need a whole batch at once, but train.micro_batch_size "
                f"{config.train.micro_batch_size} cuts it into {batches.accumulation}: try {key} group, or "
                f"train.micro_batch_size {batches.per_process}"
            )
    return batches
