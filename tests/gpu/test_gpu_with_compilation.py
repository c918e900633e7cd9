"""Compiled networks on a GPU, with and without CUDA graphs: the same steps as without, to rounding."""

import pytest
import torch
from gpu_helpers import DEVICE, GPU, Training, alone_on, assert_close, double

pytestmark = GPU
STEPS = 5  # the first ones warm up and record, the last ones play


@pytest.mark.parametrize(("kind", "mode"), [("cgan", "graphs"), ("cgan", "default"), ("cyclegan", "graphs")])
def test_compiled_steps_are_those_without(kind: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision. Learning rates, which differ from step to step, must not be what was recorded."""
    found = {}
    for each in ("off", mode):
        torch.compiler.reset()
        with alone_on(DEVICE, monkeypatch):
            run = Training(double(kind, train__compile=each))
            logs = [run.step(step) for step in range(STEPS)]
            found[each] = run.state(), logs
    (expected, expected_logs), (state, logs) = found["off"], found[mode]
    for log, other in zip(logs, expected_logs, strict=True):
        assert log == pytest.approx(other, rel=1e-8, abs=1e-10)
    assert_close(state, expected, tolerance=1e-8)


def test_compiled_half_precision_is_near_the_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one trains: operations that are fused round less often, so it isn't the same to the last bit."""
    found = {}
    for each in ("off", "graphs"):
        torch.compiler.reset()
        with alone_on(DEVICE, monkeypatch):
            run = Training(double("cgan", train__precision="bf16", model__norm="group", train__compile=each))
            found[each] = [run.step(step) for step in range(STEPS)]
    for log, other in zip(found["graphs"], found["off"], strict=True):
        assert log == pytest.approx(other, rel=0.1, abs=0.1)


def test_what_is_recorded_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    with alone_on(DEVICE, monkeypatch):
        run = Training(double("cgan", train__precision="bf16", model__norm="group", train__compile="graphs"))
        batch = run.batch(4)
        for step in range(STEPS):
            run.engine.step(run.task, [batch], step)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            log = run.engine.step(run.task, [batch], STEPS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(value.isfinite() for value in log.values())
