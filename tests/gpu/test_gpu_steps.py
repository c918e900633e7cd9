"""Steps on a GPU: the CPU's to rounding, in all number formats, and the host doesn't wait for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from gpu_helpers import DEVICE, GPU, KINDS, Training, alone_on, assert_close, double
from helpers import tiny

from colordist.config import Config
from colordist.data.batch import Batch
from colordist.data.loader import ResidentLoader
from colordist.evaluation.build_source import build_source
from colordist.tasks.base import Calls, Generated, Loss
from colordist.training.build import build_loader
from colordist.training.meter import Meter

pytestmark = GPU
SLEEP = 4 * 10**9  # cycles: some seconds


# --- the same as on a CPU


@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_double_precision_are_those_of_the_cpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for device in ("cpu", DEVICE):
        with alone_on(device, monkeypatch):
            run = Training(double(kind))
            assert run.engine.device.type == device
            logs = [run.step(step) for step in range(3)]
            found[device] = run.state(), logs
    (expected, expected_logs), (state, logs) = found["cpu"], found[DEVICE]
    assert_close(state, expected, tolerance=1e-9)
    for log, other in zip(logs, expected_logs, strict=True):
        assert log == pytest.approx(other, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_single_precision_is_that_of_the_cpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its losses and gradients: Adam's first step is as long for a gradient of rounding noise as for any other."""
    found = {}
    for device in ("cpu", DEVICE):
        with alone_on(device, monkeypatch):
            found[device] = Training(double(kind, train__precision="fp32")).step(0)
    assert found[DEVICE] == pytest.approx(found["cpu"], rel=1e-3, abs=1e-5)


# --- half precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["cgan", "everything"])
def test_half_precision_learns_as_single_precision(kind: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for each in ("fp32", precision):
        with alone_on(DEVICE, monkeypatch):
            run = Training(double(kind, train__precision=each, model__width=16, model__norm="group"))
            logs = [run.step(step, count=4 + step % 2) for step in range(30)]
        assert all(torch.tensor(list(log.values())).isfinite().all() for log in logs)
        learned = [log["loss/generator/l1"] for log in logs if not log["diagnostics/generator/skipped"]]
        assert len(learned) >= 20  # fp16 finds its scale by skipping
        found[each] = sum(learned[-10:]) / 10
    assert found[precision] == pytest.approx(found["fp32"], rel=0.1)
    assert found[precision] != found["fp32"]  # it was computed otherwise


def test_an_overflow_is_skipped_and_the_scale_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on(DEVICE, monkeypatch):
        run = Training(double("cgan", train__precision="fp16"))
        for name in run.task.networks:
            run.strategy(name).scaler = torch.amp.GradScaler(DEVICE, init_scale=1024.0, growth_interval=2)
        scales = spoil(run, network="generator", steps=(2,))
        run.step(0)
        run.step(1)
        assert scales() == {"generator": 2048.0, "discriminator": 2048.0}
        before = run.state()
        log = run.step(2)
        after = run.state()
        assert (log["diagnostics/generator/skipped"], log["diagnostics/discriminator/skipped"]) == (1, 0)
        assert scales() == {"generator": 1024.0, "discriminator": 2048.0}
        same = {key for key, value in before.items() if torch.equal(value, after[key])}
        learned = {key for key in before if key.startswith(("/generator/module", "/generator/optimizer"))}
        assert learned <= same
        assert not {key for key in before if key.startswith("/discriminator/optimizer")} & same
        run.step(3)
        run.step(4)
        assert scales() == {"generator": 2048.0, "discriminator": 4096.0}


def spoil(run: Training, network: str, steps: tuple[int, ...]) -> Any:  # noqa: ANN401  a function
    """Let a network's loss be infinite in some steps. Returns what tells the loss scales."""
    real = run.task.loss

    def loss(phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        found = real(phase, calls, batch, generated, step)
        return Loss(found.total * torch.inf, found.terms) if (phase == network and step in steps) else found

    run.task.loss = loss  # type: ignore[method-assign]
    return lambda: {name: run.strategy(name).scaler.get_scale() for name in run.task.networks}


# --- nobody waits


class Loop(Training):
    """The trainer's loop between two lines of the log, on real images."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.loader = build_loader(config, self.task, build_source(config.data, self.engine), self.engine)
        self.meter, self.at = Meter(config.train.global_batch_size), 0

    def go(self, steps: int) -> None:
        for _ in range(steps):
            batches = self.loader.micro_batches(self.at)
            self.meter.add(self.engine.step(self.task, batches, self.at))
            self.at += 1


@contextmanager
def no_waiting() -> Iterator[None]:
    """In here, whatever torch knows to wait for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_host_asks_the_device_for_nothing(kind: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on(DEVICE, monkeypatch):
        run = Loop(tiny(**KINDS[kind], train__precision=precision, train__micro_batch_size=2))
        run.go(2)
        with no_waiting():
            run.go(3)
            with pytest.raises(RuntimeError, match="synchronizing"):  # it would have been noticed
                float(torch.ones(1, device=DEVICE))
        means, _ = run.meter.finish_interval(run.engine)
    assert all(torch.tensor(list(means.values())).isfinite())


@pytest.mark.parametrize("batch", [4, 2048])
def test_a_step_is_issued_while_the_device_is_occupied(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also copies to the device and allocations wait for nothing: the host is through with a step before it begins."""
    with alone_on(DEVICE, monkeypatch):
        run = Loop(tiny(task__name="cgan", train__global_batch_size=batch, data__image_size=16))
        run.go(4)
        torch.cuda.synchronize()
        torch.cuda._sleep(SLEEP)
        slept = torch.cuda.Event()
        slept.record()
        run.go(1)
        assert not slept.query()
        torch.cuda.synchronize()
        assert slept.query()


# --- what is on the device


@pytest.mark.parametrize("kind", ["cgan", "cyclegan", "noise"])
def test_images_and_whatever_is_learned_are_on_the_device(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on(DEVICE, monkeypatch):
        run = Loop(tiny(**KINDS[kind]))
        run.go(1)
        assert isinstance(run.loader, ResidentLoader)
        (batch,) = run.loader.micro_batches(1)
        tensors = {"images": run.loader.images} | vars(batch) | run.task.state
        for name, network in run.engine.networks.items():
            tensors |= {f"{name}/{key}": value for key, value in network.module.state_dict().items()}
            moments = [value for each in network.optimizer.state.values() for value in each.values()]
            tensors |= {f"{name}/moment {index}": value for index, value in enumerate(moments)}
        log = run.engine.step(run.task, [batch], 1)
        tensors |= {name: value for name, value in log.items() if name != "pace/sync_bytes"}
    assert {name for name, value in tensors.items() if value.device.type != DEVICE} == set()


def test_memory_is_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on(DEVICE, monkeypatch):
        run, peaks = Training(double("cgan")), []
        for count in (4, 1024):  # libraries hold some tens of MB for themselves
            torch.cuda.reset_peak_memory_stats()
            run.step(0, count)
            peaks.append(run.engine.peak_memory())
        assert peaks[0] * 1e6 > sum(value.nbytes for value in run.state().values() if value.ndim)
        assert peaks[1] > 2 * peaks[0]
