"""Training without PyTorch's compiler: imported only where it is used; updates are those of PyTorch's own Adam."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import alone_on_the_cpu, clean_environment
from torch import nn

from colordist.engine import eager
from colordist.engine.runtime import Engine

SETTINGS = ["--data.train_images=8", "--data.test_images=2", "--data.image_size=16", "--model.width=4"]
SETTINGS += ["--model.depth=2", "--discriminator.width=4", "--discriminator.depth=2", "--train.global_batch_size=2"]
SETTINGS += ["--task.warmup_steps=0", "--train.steps=2"]


def output(program: str, *arguments: str) -> list[str]:
    """The lines that a program prints, which runs in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_training_imports_no_compiler(tmp_path: Path) -> None:
    """Neither a new run nor a resumed one. Afterwards torch.compile works."""
    program = """
import sys
from colordist.cli.parser import parse
from colordist.train import train

given = sys.argv[1:]
for more in ("--train.max_minutes=0.0001", "--train.max_minutes=1"):
    sys.argv[1:] = [*given, more]
    train(parse())
print(*[name for name in ("torch._dynamo", "torch._inductor", "torch.distributed.tensor") if name in sys.modules])
import torch
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item(), "torch._dynamo" in sys.modules)
"""
    run = tmp_path / "run"
    assert output(program, *SETTINGS, f"--run.dir={run}")[-2:] == ["", "2.0 True"]
    assert (run / "checkpoints/step-000001").exists()
    assert (run / "finished").exists()


def test_the_placeholder_answers_ddp_and_imports_the_compiler_for_others() -> None:
    program = """
import sys
import torch
from colordist.engine.eager import ddp_without_compiler

with ddp_without_compiler():
    print(torch._dynamo.utils.get_optimize_ddp_mode(), "torch._dynamo" in sys.modules)
print("_dynamo" in vars(torch))
with ddp_without_compiler():
    print(torch._dynamo.utils.istype(1, int), torch._dynamo.config.recompile_limit > 0)
print(torch._dynamo is sys.modules["torch._dynamo"])
"""
    assert output(program) == ["no_optimization False", "False", "True True", "True"]


def test_updates_are_those_of_pytorchs_adam() -> None:
    """With a skipped update, hooks, and a state that either of them loads."""
    modules = [nn.Linear(3, 2)]
    modules.append(copy.deepcopy(modules[0]))
    kinds = eager.Adam, torch.optim.Adam
    steps: list[int] = []
    optimizers = [kind(each.parameters(), lr=0.1, fused=True) for kind, each in zip(kinds, modules, strict=True)]
    optimizers[0].register_step_post_hook(lambda *_: steps.append(len(steps)))
    for step in range(4):
        if step == 2:
            states = [each.state_dict() for each in optimizers]
            for optimizer, state in zip(optimizers, reversed(states), strict=True):
                optimizer.load_state_dict(copy.deepcopy(state))
        for module, optimizer in zip(modules, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            assert module.weight.grad is None
            module(torch.full((1, 3), step + 1.0)).square().sum().backward()
            optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(float(step == 1))  # type: ignore[attr-defined]
            optimizer.step()
            assert torch.is_grad_enabled()
    assert torch.equal(modules[0].weight, modules[1].weight)
    assert torch.equal(modules[0].bias, modules[1].bias)
    assert steps == [0, 1, 2, 3]


def test_an_unknown_decorator_stays() -> None:
    assert eager._undecorated(torch.no_grad()(nn.Linear.forward)) is None
    assert eager._undecorated(nn.Linear.forward) is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for CPUs with g++")
def test_what_is_compiled_is_deterministic_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on_the_cpu(monkeypatch):
        Engine("fp64", deterministic=True, compiled="default")
        assert torch.are_deterministic_algorithms_enabled()
        assert torch._inductor.config.deterministic
