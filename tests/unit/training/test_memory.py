"""The estimate of memory, against counts by hand and against what a real step needs."""

import importlib.util
import re
import resource
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from helpers import ROOT, alone_on_the_cpu, prepared, random_batch, tiny
from torch.utils.checkpoint import checkpoint

from colordist.config import Config
from colordist.data.loader import load
from colordist.data.sources.synthetic import SyntheticSplit
from colordist.engine.network import Network
from colordist.errors import UserError
from colordist.models.feature_network import FeatureNetwork
from colordist.tasks.base import Task
from colordist.training.batch_arithmetic import batch_arithmetic
from colordist.training.build_task import build_networks, build_task
from colordist.training.describe import describe
from colordist.training.memory import LiveBytes, Memory, build_fake, estimate


def networks_of(config: Config) -> dict[str, Network]:
    return build_networks(build_task(config), config)


def expected(config: Config, processes: int = 1) -> Memory:
    task = build_task(config, processes)
    return estimate(task, build_networks(task, config), config, batch_arithmetic(config.train, processes))


def memory(**settings: object) -> Memory:
    return expected(tiny(**settings))


# --- counts by hand

SKIPS = 2
"""Numbers that a network has besides: how many updates were skipped in a row, and whether the latest was."""


def test_what_lasts_by_hand() -> None:
    """Generator: weight, gradient, two moments, EMA. Discriminator: the first four. Four bytes a number."""
    networks = networks_of(tiny(discriminator__spectral_norm=False))
    generator, discriminator = (networks[name] for name in ("generator", "discriminator"))
    # Adam counts its steps for each tensor.
    steps = len(generator.trainable_parameters) + len(discriminator.trainable_parameters)
    generators, discriminators = generator.trainable_parameter_count(), discriminator.trainable_parameter_count()
    numbers = 5 * generators + 4 * discriminators + steps + 2 * SKIPS
    assert memory(discriminator__spectral_norm=False).lasting == 4 * numbers
    alone = 4 * (5 * generator.trainable_parameter_count() + len(generator.trainable_parameters) + SKIPS)
    assert memory(task__name="autoencoder").lasting == alone
    counts = 4 * (len(generator.trainable_parameters) + SKIPS)  # always in float32
    assert memory(task__name="autoencoder", train__precision="fp64").lasting == 2 * alone - counts


def test_what_lasts_of_frozen_weights_by_hand() -> None:
    """A weight that doesn't learn has no gradient and no moments: it is there twice, itself and in the EMA."""
    network = networks_of(tiny(task__name="autoencoder", train__freeze=["encoder"]))["generator"]
    trainable_parameters = network.trainable_parameter_count()
    frozen = sum(p.numel() for p in network.module.parameters()) - trainable_parameters
    held = memory(task__name="autoencoder", train__freeze=["encoder"])
    assert held.lasting == 4 * (5 * trainable_parameters + 2 * frozen + len(network.trainable_parameters) + SKIPS)
    assert held.peak - held.lasting < memory(task__name="autoencoder").peak - memory(task__name="autoencoder").lasting


def test_pools_by_hand() -> None:
    """Each of 4 places keeps 3 colour images and 3 grey ones, of 32 x 32 pixels."""
    with_pools, without = (memory(task__name="cyclegan", task__image_buffer_slots=slots).lasting for slots in (3, 0))
    assert with_pools - without == 4 * 4 * 3 * (3 + 1) * 32 * 32
    config = tiny(task__name="cyclegan", train__global_batch_size=12)
    assert expected(config, processes=3).lasting == with_pools  # each has 4 of 12 places


def test_several_processes_keep_places_for_gradients() -> None:
    config = tiny(train__global_batch_size=8)
    one, two = expected(tiny()), expected(config, processes=2)  # four images each
    assert two.lasting == one.lasting  # where the gradients are
    trainable_parameters = sum(network.trainable_parameter_count() for network in networks_of(config).values())
    assert 0 < two.peak - one.peak <= 4 * trainable_parameters


def test_live_bytes_by_hand() -> None:
    kept = torch.zeros(5)  # made before
    with LiveBytes() as live:
        live.add([kept, kept[1:], "no tensor"])
        assert live.now == 20
        made = torch.ones(100)
        view = made[:10]
        assert live.now == 420
        twice = (made * 2).sum()  # the product lives until it is summed up
        assert (live.now, live.most) == (424, 824)
        del made
        assert live.now == 424  # there still is a view
        del view, twice
        assert live.now == 20
    assert live.most == 824


def test_live_bytes_of_what_is_kept_for_backward() -> None:
    def squares(x: torch.Tensor) -> torch.Tensor:
        return x.exp().exp().exp().sum()

    x = torch.zeros(100, requires_grad=True)
    with LiveBytes() as live:
        answer = squares(x)
        assert live.now == 3 * 400 + 4  # each exp keeps its answer
        answer.backward()
        assert x.grad is not None
        assert live.now == 400 + 4
        x.grad = None
        answer = checkpoint(squares, x, use_reentrant=False)
        assert live.now == 4
        answer.backward()
        assert live.now == 400 + 4


# --- against a real step


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        spec = importlib.util.spec_from_file_location("memory_benchmark", ROOT / "benchmarks" / "memory.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


REAL: dict[str, dict[str, object]] = {
    "autoencoder": {"task__name": "autoencoder", "model__name": "autoencoder"},
    "cgan": {},
    "checkpointing": {"train__activation_checkpointing": True},
    "micro-batches": {"train__micro_batch_size": 4},
    "bf16": {"train__precision": "bf16"},
    # What a convolution needs for its second derivative alone isn't seen: of the smallest networks it is a quarter.
    "penalty": {"task__r1_weight": 1.0, "model__width": 16, "discriminator__width": 16},
    "cyclegan": {"task__name": "cyclegan"},
    "flow": {"task__name": "flow"},
    "features": {"task__feature_weight": 1.0, "task__feature_model": "test_efficientnet"},
}


@pytest.mark.parametrize("name", REAL)
def test_within_15_percent_of_what_a_step_needs(name: str, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    depths = {"model__depth": 2} | (
        {} if REAL[name].get("task__name") in ("autoencoder", "flow") else {"discriminator__depth": 2}
    )
    config = tiny(train__global_batch_size=8, **depths, **REAL[name])
    step, most = getattr(config.task, "warmup_steps", 0), config.train.micro_batch_size

    def train() -> None:
        engine, task, _ = prepared(config)
        batch = random_batch(8, 32, dtype=torch.float32, noise=(task.candidates, *task.noise_shape(32)))
        for _ in range(2):
            engine.step(task, [batch] if most is None else [batch[:most], batch[most:]], step)

    with alone_on_the_cpu(monkeypatch):
        measured = script.peak(torch.device("cpu"), train)
    assert expected(config).peak == pytest.approx(measured, rel=0.15)


# --- what it depends on


def passing(**settings: object) -> int:
    """What a step needs besides what lasts."""
    found = memory(**settings)
    return found.peak - found.lasting


@pytest.mark.parametrize("task", ["autoencoder", "cgan"])
def test_less_with_gradient_checkpointing(task: str) -> None:
    deep = {"task__name": task, "model__depth": 2} | ({"discriminator__depth": 2} if task == "cgan" else {})
    assert passing(**deep, train__activation_checkpointing=True) < 0.7 * passing(**deep)


def test_a_penalty_keeps_the_graph_of_a_gradient() -> None:
    assert 1.1 * passing() < passing(task__r2_weight=1.0) < 3 * passing()


def test_a_feature_loss_needs_its_networks_weights_and_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{FeatureNetwork.__module__}.create_pretrained", lambda *_, **__: pytest.fail("fetches"))
    features = {"task__feature_weight": 1.0, "task__feature_model": "test_resnet"}
    network = build_task(tiny(**features)).frozen["features"]
    count = sum(tensor.nbytes for tensor in network.state_dict().values())
    assert memory(**features).lasting - memory().lasting == count
    assert passing(**features) > 1.2 * passing()
    assert passing(**features, train__precision="bf16") < 0.85 * passing(**features)


def test_attention_keeps_nothing_of_all_pairs_of_pixels() -> None:
    pairs = 4 * (32 * 32) ** 2 * 4
    assert passing(task__name="autoencoder", model__attention_level=0) < pairs / 2


def test_further_answers_need_further_activations() -> None:
    one, four = (
        passing(task__name="autoencoder", model__noise=2, task__candidates=candidates) for candidates in (1, 4)
    )
    assert one < four < 4 * one  # the encoder runs once


def test_activations_follow_what_is_computed_at_once() -> None:
    whole = passing(train__global_batch_size=8)
    assert passing(train__global_batch_size=16) == pytest.approx(2 * whole, rel=0.05)
    assert passing(train__global_batch_size=16, train__micro_batch_size=4) < whole
    assert passing(train__global_batch_size=8, train__precision="bf16") < 0.7 * whole
    assert "MiB" in str(memory())


# --- what is told


def test_a_dry_run_tells_it_with_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordist.training.describe.device_type", lambda: "cpu")
    config = tiny(train__precision="auto", data__image_size=64)
    told = describe(config, batch_arithmetic(config.train, 1)).splitlines()[-1]
    assert re.fullmatch(r"memory per process \(cpu, fp32\): about \d+ MiB \(.*\), plus .* \(12 KiB each\)", told)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert "(cpu, fp32, before ZeRO partitions it)" in describe(config, batch_arithmetic(config.train, 1))


def test_a_dry_run_says_when_memory_lacks_and_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordist.training.describe.device_type", lambda: "cpu")

    def told(**settings: object) -> str:
        config = tiny(train__global_batch_size=8, **settings)
        return describe(config, batch_arithmetic(config.train, 1)).splitlines()[-1]

    assert "there are" not in told()
    monkeypatch.setattr("colordist.training.describe.device_memory", lambda device: 2**20)
    way_out = "; more than the 1 MiB there are: try train.micro_batch_size 4"
    assert told().endswith(f"{way_out}, or train.activation_checkpointing true")
    assert told(train__activation_checkpointing=True).endswith(way_out)


@pytest.mark.parametrize("task", ["autoencoder", "cgan", "cyclegan", "flow"])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
def test_networks_of_fake_tensors_need_the_same(task: str, precision: str) -> None:
    config = tiny(task__name=task, train__precision=precision)

    def build() -> tuple[Task, dict[str, Network]]:
        task = build_task(config)
        return task, build_networks(task, config)

    (built, networks), fake = build_fake(build, precision, "cpu")
    batches = batch_arithmetic(config.train, 1)
    assert estimate(built, networks, config, batches, "cpu", fake) == expected(config)
    assert torch.get_default_dtype() == torch.float32


def test_a_dry_run_allocates_nothing_of_what_it_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordist.training.describe.device_type", lambda: "cpu")
    describe(tiny(), batch_arithmetic(tiny().train, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = tiny(model__width=1024, model__depth=2)
    assert "about" in describe(config, batch_arithmetic(config.train, 1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB: the weights have 1.5 GiB


# --- what doesn't fit


def test_a_network_that_cannot_fit_is_refused_before_it_is_built() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for settings, told in (
        ({"model__width": 2**16}, r"^model\.width 65536: 4 numbers for each weight don't fit into the .* GiB"),
        ({"train__global_batch_size": 10**6}, r"^train\.micro_batch_size: 1,000,000 images of 32x32 .* \d+$"),
        ({"discriminator__width": 2**16}, r"^discriminator\.width 65536: 4 numbers for each weight don't fit"),
    ):
        with pytest.raises(UserError, match=told):
            build_task(tiny(**settings))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


def test_images_that_cannot_fit_are_refused_before_they_are_painted() -> None:
    split = SyntheticSplit(0, "train", 10**8, 512)
    with pytest.raises(UserError, match=r"^100,000,000 training images take more than 73,242\.\d GiB, but there are "):
        load(split, torch.device("cpu"), "training images")
