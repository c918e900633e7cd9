"""The engine on one process: whose turn it is, accumulation, clipping, precision, and launches that don't fit."""

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, batch_of, random_batch, tiny
from torch import Tensor

from colordist.data.batch import Batch
from colordist.data.sampler import even_slices
from colordist.engine.environment import (
    check_clipping,
    check_gradient_penalties,
    check_launch,
    resolve_precision,
    without_deepspeed_plugin,
    zero_stage,
)
from colordist.engine.runtime import Engine
from colordist.errors import UserError
from colordist.tasks.base import Task
from colordist.training.build_task import build_networks, build_task

BATCH = random_batch(6)
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


def prepared(**settings: Any) -> tuple[Engine, Task]:  # noqa: ANN401  any setting
    """An engine and a task of small networks in double precision, past their start at grey."""
    config = tiny(**({"train__precision": "fp64", "model__norm": "instance"} | settings))
    engine, task = Engine(config.train.precision, deterministic=False), build_task(config)
    random = torch.Generator().manual_seed(5)
    for network in task.networks.values():
        with torch.no_grad():
            for parameter in network.module.parameters():
                if not parameter.any():
                    parameter.copy_(torch.randn(parameter.shape, generator=random) / 10)
    engine.prepare(task, build_networks(task, config))
    return engine, task


def state(task: Task, name: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in task.networks[name].module.state_dict().items()}


def sample_slices(batch: Batch, most: int | None) -> list[Batch]:
    return [batch[part] for part in even_slices(len(batch), most)]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


# --- phases


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize(("learns", "rests"), [("discriminator", "generator"), ("generator", "discriminator")])
def test_only_the_network_whose_turn_it_is_learns(
    learns: str, rests: str, micro: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, task = prepared()
    monkeypatch.setattr(task, "phases", lambda step: (learns,))
    before = {name: state(task, name) for name in task.networks}
    log = engine.step(task, sample_slices(BATCH, micro), 0)
    assert equal(before[rests], state(task, rests))  # buffers, too
    parameters = dict(task.networks[learns].module.named_parameters())
    assert all(not torch.equal(before[learns][key], value) for key, value in parameters.items())
    assert all(parameter.grad is None for parameter in task.networks[rests].module.parameters())
    assert all(key.split("/")[1] == learns for key in log.keys() - {"pace/sync_bytes"})


def test_the_generator_learns_from_the_discriminator_that_has_just_learned() -> None:
    engine, task = prepared()
    old = copy.deepcopy(task.networks["generator"].module)
    log = engine.step(task, [BATCH], 0)
    judge = task.networks["discriminator"].module  # as it was in the generator's turn
    with torch.no_grad():
        logits = judge(BATCH.grey, old(BATCH.grey))
    expected = torch.nn.functional.softplus(-logits).mean()
    assert log["loss/generator/adversarial"].item() == pytest.approx(expected.item(), abs=1e-12)


def test_warm_up_leaves_the_discriminator_alone() -> None:
    engine, task = prepared(task__warmup_steps=1)
    before = state(task, "discriminator")
    log = engine.step(task, [BATCH], 0)
    assert equal(before, state(task, "discriminator"))
    assert set(log) == {
        "loss/generator/l1",
        "diagnostics/generator/gradient_norm",
        "diagnostics/generator/skipped",
        "pace/sync_bytes",
    }
    log = engine.step(task, [BATCH], 1)
    assert not equal(before, state(task, "discriminator"))
    assert {"loss/generator/adversarial", "loss/discriminator/real"} <= set(log)


def test_what_is_logged_is_still_on_the_device_and_without_graph() -> None:
    engine, task = prepared()
    log = engine.step(task, [BATCH], 0)
    assert all(value.shape == () and not value.requires_grad for value in log.values())


# --- accumulation


@pytest.mark.parametrize("micro", [1, 3, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {"task__name": "autoencoder"},
        {"task__name": "autoencoder", "model__norm": "group", "model__width": 16},
        {"task__name": "cgan", "discriminator__spectral_norm": True, "task__warmup_steps": 1},
        {"task__name": "cgan", "discriminator__norm": "instance", "discriminator__output": "image"},
        {"task__name": "autoencoder", "model__noise": 2, "task__candidates": 3},
        {"task__name": "cgan", "model__noise": 2, "task__candidates": 3, "task__pixel": "l2"},
    ],
    ids=["ae", "ae group", "cgan spectral", "cgan image", "ae noise", "cgan noise"],
)
def test_accumulation_changes_nothing(settings: dict[str, Any], micro: int) -> None:
    noise = settings.get("task__candidates", 1), settings.get("model__noise", 0)

    def learned(most: int | None) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        engine, task = prepared(**settings, optimizer__generator__clip_norm=0.5)
        logs = [engine.step(task, sample_slices(random_batch(5 + step, noise=noise), most), step) for step in range(3)]
        weights = {f"{name}/{key}": value for name in task.networks for key, value in state(task, name).items()}
        average = engine.networks["generator"].ema
        assert average is not None
        return weights | {f"ema/{key}": value for key, value in average.module.state_dict().items()}, logs

    (expected, expected_logs), (found, found_logs) = learned(None), learned(micro)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert (value - found[key]).abs().max() < 1e-12, key
    for whole, parts in zip(expected_logs, found_logs, strict=True):
        assert whole.keys() == parts.keys()
        for key, value in whole.items():
            assert parts[key].item() == pytest.approx(value.item(), abs=1e-12), key


# --- one update


def norm_of_gradients(task: Task, name: str) -> float:
    gradients = [p.grad for p in task.networks[name].module.parameters() if p.grad is not None]
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def test_long_gradients_are_shortened_and_told_as_they_were() -> None:
    norms = {}
    for limit in (None, 1e-3, 1e3):
        engine, task = prepared(task__name="autoencoder", optimizer__generator__clip_norm=limit)
        log = engine.step(task, [BATCH], 0)
        norms[limit] = log["diagnostics/generator/gradient_norm"].item(), norm_of_gradients(task, "generator")
    told, unclipped = norms[None]
    assert told == pytest.approx(unclipped)
    assert told > 1e-3
    for limit, after in ((1e-3, 1e-3), (1e3, told)):
        assert norms[limit][0] == pytest.approx(told)
        assert norms[limit][1] == pytest.approx(after, rel=1e-2)


def test_each_network_has_its_own_limit() -> None:
    engine, task = prepared(optimizer__discriminator__clip_norm=1e-3)
    log = engine.step(task, [BATCH], 0)
    assert norm_of_gradients(task, "discriminator") == pytest.approx(1e-3, rel=1e-2)
    assert norm_of_gradients(task, "generator") == pytest.approx(log["diagnostics/generator/gradient_norm"].item())


def test_the_steps_learning_rate_is_used() -> None:
    engine, task = prepared(
        task__name="autoencoder", optimizer__generator__warmup_steps=9, optimizer__generator__lr=0.1
    )
    before = state(task, "generator")
    engine.step(task, [BATCH], 0)
    # Adam's first step is as long as its rate, for every weight with a gradient well above its epsilon: 0.1 / 10.
    longest = max((value - before[key]).abs().max().item() for key, value in state(task, "generator").items())
    assert longest == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("half_life", [0, 1000])
def test_the_average_follows(half_life: int) -> None:
    engine, task = prepared(task__name="autoencoder", train__ema_images=half_life)
    network = engine.networks["generator"]
    assert network.ema is not None
    before = copy.deepcopy(network.ema.module.state_dict())
    engine.step(task, sample_slices(BATCH, 2), 99)
    now, average = network.module.state_dict(), network.ema.module.state_dict()
    # 600 images seen, so the half-life is 600 / 20 = 30 at most: a batch of 6 leaves 0.5 ** (6 / 30) of the old.
    old = 0.5**0.2 if half_life else 0.0
    for key, value in average.items():
        assert torch.allclose(value, old * before[key] + (1 - old) * now[key], atol=1e-12), key
        if not half_life:
            assert torch.equal(value, now[key])


# --- precision


@pytest.mark.parametrize(
    ("asked", "device", "found"),
    [
        ("auto", "cpu", "fp32"),
        ("auto", "mps", "fp32"),
        ("fp64", "cpu", "fp64"),
        ("bf16", "cpu", "bf16"),
        ("fp16", "cuda", "fp16"),
        ("fp64", "cuda", "fp64"),
        ("fp16", "mps", "fp16"),
    ],
)
def test_resolve_precision(asked: str, device: str, found: str) -> None:
    assert resolve_precision(asked, device) == found


@pytest.mark.parametrize(("supported", "found"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_gpu(supported: bool, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve_precision("auto", "cuda") == found


@pytest.mark.parametrize(
    ("asked", "device", "way_out"),
    [("fp16", "cpu", "try train.precision bf16 or fp32"), ("fp64", "mps", "try train.precision fp32")],
)
def test_what_a_device_does_not_have_is_refused(asked: str, device: str, way_out: str) -> None:
    with pytest.raises(UserError, match=rf"train\.precision is {asked}.*{way_out}") as refused:
        resolve_precision(asked, device)
    assert "\n" not in str(refused.value)


def test_unknown_precision_is_a_bug_not_a_guess() -> None:
    with pytest.raises(ValueError, match="fp8"):
        resolve_precision("fp8", "cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("fp64", torch.float64), ("fp32", torch.float32)])
def test_networks_get_the_precision(precision: str, dtype: torch.dtype) -> None:
    engine, task = prepared(train__precision=precision)
    assert engine.dtype == dtype
    for network in task.networks.values():
        assert {value.dtype for value in network.module.state_dict().values()} == {dtype}
    average = engine.networks["generator"].ema
    assert average is not None
    assert {value.dtype for value in average.module.state_dict().values()} == {dtype}


def test_bf16_computes_in_half_and_keeps_weights_whole() -> None:
    engine, task = prepared(train__precision="bf16")
    seen: list[torch.dtype] = []
    layer = next(m for m in task.networks["generator"].module.modules() if isinstance(m, torch.nn.Conv2d))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    log = engine.step(task, [batch_of(BATCH.grey.float(), BATCH.target.float())], 0)
    assert seen == [torch.bfloat16]
    assert all(value.isfinite() for value in log.values())
    for network in task.networks.values():
        assert {parameter.dtype for parameter in network.module.parameters()} == {torch.float32}
    assert log["loss/discriminator/real"].dtype == log["loss/generator/l1"].dtype == torch.float32


def test_deterministic() -> None:
    Engine("fp32", deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
    Engine("fp32", deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()


# --- launches that don't fit


@pytest.mark.parametrize(
    ("device", "gpus", "environment", "told"),
    [
        ("mps", 0, DEEPSPEED, "doesn't run on MPS"),
        ("cpu", 0, DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "use launch/multi_gpu.yaml"),
        ("cuda", 1, DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "ds.json, .* use launch/deepspeed"),
        ("cuda", 1, DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "set offload_optimizer"),
        ("cuda", 1, DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, "set offload_param_device none"),
        ("cuda", 1, DEEPSPEED | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "set train.micro_batch_size"),
        ("cuda", 8, {"ACCELERATE_USE_FSDP": "True"}, "asks for FSDP"),
        ("cpu", 0, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}, "started only one: add --multi_gpu"),
        ("cuda", 2, {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, "4 processes here, but there are 2 GPUs"),
        ("cuda", 2, {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, "try --num_processes 2"),
        ("cuda", 1, {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "try --num_processes 1"),
        ("mps", 0, {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "try --num_processes 1"),
        ("cpu", 0, {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, "MASTER_ADDR is not set"),
        ("cuda", 1, {"ACCELERATE_MIXED_PRECISION": "bf16"}, "asks for bf16, but train.precision is fp32"),
        ("cuda", 1, {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "--dynamo_backend no"),
    ],
)
def test_unfit_launch_is_refused(
    device: str, gpus: int, environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told) as refused:
        check_launch(device, "fp32")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("device", "gpus", "environment"),
    [
        ("cpu", 0, {}),
        ("cpu", 0, {"ACCELERATE_USE_DEEPSPEED": "false", "ACCELERATE_USE_CPU": "True"}),
        ("cpu", 0, DEEPSPEED | {"ACCELERATE_USE_CPU": "true"}),
        ("cuda", 1, DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none"}),
        ("cuda", 1, DEEPSPEED | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"}),
        ("cpu", 0, {"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}),
        ("cpu", 0, {"ACCELERATE_MIXED_PRECISION": "fp32", "ACCELERATE_DYNAMO_BACKEND": "NO"}),
        ("cpu", 0, {"MASTER_ADDR": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}),
        ("cuda", 4, {"MASTER_ADDR": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}),
        ("cuda", 4, {"MASTER_ADDR": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}),
        ("cuda", 1, {"MASTER_ADDR": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "3"}),
        ("mps", 0, {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}),
    ],
)
def test_fit_launch_passes(
    device: str, gpus: int, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check_launch(device, "fp32")


def test_an_engine_checks_its_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match="started only one"):
        Engine("fp32", deterministic=False)


# --- DeepSpeed; what it does is tested where several processes are


@pytest.mark.parametrize("precision", ["fp64", "fp16"])
def test_deepspeed_runs_two_precisions(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match=rf"train\.precision is {precision}.*try train\.precision bf16 or fp32"):
        check_launch("cuda", precision)
    for fit in ("bf16", "fp32"):
        check_launch("cpu", fit)


def test_zero_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert zero_stage() is None
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "True")
    assert zero_stage() == 3
    monkeypatch.delenv("ACCELERATE_DEEPSPEED_ZERO_STAGE")
    assert zero_stage() == 2


def test_gradients_are_not_clipped_in_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    check_clipping("optimizer.generator.clip_norm", 2.0)
    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "1.0")
    check_clipping("optimizer.generator.clip_norm", 2.0)  # which nobody but DeepSpeed is told
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    check_clipping("optimizer.generator.clip_norm", 1.0)
    for limit in (None, 2.0):
        with pytest.raises(UserError, match=rf"gradient_clipping 1\.0, but generator\.clip_norm is {limit}: "):
            check_clipping("generator.clip_norm", limit)


def test_accelerate_does_not_run_deepspeed_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    with without_deepspeed_plugin("cpu"):
        pass
    assert not {"ACCELERATE_USE_DEEPSPEED", "DS_ACCELERATOR"} & os.environ.keys()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with without_deepspeed_plugin("cpu"):
        assert "ACCELERATE_USE_DEEPSPEED" not in os.environ
        assert os.environ["DS_ACCELERATOR"] == "cpu"
    assert os.environ["ACCELERATE_USE_DEEPSPEED"] == "true"


# --- together


def test_a_mistake_is_raised_once_the_others_know() -> None:
    engine = Engine("fp32", deterministic=False)

    def mistake() -> None:
        raise UserError("no such file")

    with pytest.raises(UserError, match=r"^no such file$"):
        engine.on_all_ranks(mistake)
    assert engine.on_ranks(mistake, here=False) is None  # work of another rank


def test_what_runs_on_all_ranks_returns_its_result() -> None:
    engine = Engine("fp32", deterministic=False)
    assert engine.on_all_ranks(lambda: [1]) == engine.on_ranks(lambda: [1], here=True) == [1]


@pytest.mark.parametrize(("rank", "first", "turn"), [(0, True, 0), (2, True, 1), (1, False, 2), (3, False, 2)])
def test_one_process_per_machine_fetches_before_the_others(
    rank: int, first: bool, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes on two machines, as each of them sees it."""
    engine = Engine("fp32", deterministic=False)
    turns: list[bool] = []
    real = engine.on_ranks

    def on_ranks(work: Any, *, here: bool) -> Any:  # noqa: ANN401
        turns.append(here)
        return real(work, here=here)

    monkeypatch.setattr(engine, "on_ranks", on_ranks)
    monkeypatch.setattr(engine, "is_main", rank == 0)
    monkeypatch.setattr(Engine, "is_first_on_machine", first)
    assert engine.fetch(lambda: f"of {rank}", "fetching") == f"of {rank}"
    assert turns == [each == turn for each in range(3)]


def test_alone_sums_are_its_own() -> None:
    engine = Engine("fp32", deterministic=False)
    assert (engine.rank, engine.world_size, engine.is_main, engine.is_first_on_machine) == (0, 1, True, True)
    assert torch.equal(engine.sum(torch.tensor([1.5, 2.5])), torch.tensor([1.5, 2.5]))
    assert engine.from_main({"a": [1]}) == {"a": [1]}


def test_deepspeed_differentiates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"loss.r1_weight": 0.0, "loss.r2_weight": 0.2}
    check_gradient_penalties(weights)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    check_gradient_penalties({"loss.r1_weight": 0.0, "loss.r2_weight": 0.0})
    with pytest.raises(UserError, match=r"loss.r2_weight is 0.2, .* set loss.r2_weight 0"):
        check_gradient_penalties(weights)
