"""Fingerprints of weights, and what is refused when processes differ."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from helpers import alone_on_the_cpu, random_batch, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from colordist.engine import consistency as agreement
from colordist.engine.consistency import (
    check_replicas,
    check_same,
    check_same_settings,
    tensor_hash,
)
from colordist.engine.runtime import Engine
from colordist.errors import RunError, UserError
from colordist.run import provenance
from colordist.run.provenance import code_digest
from colordist.training.build import check_same_code
from colordist.training.build_task import build_networks, build_task

CPU = torch.device("cpu")
NUMBERS = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))


def of(*tensors: Tensor) -> int:
    return int(tensor_hash(tensors, CPU))


class Others(list[Any]):
    """Stands for an engine whose process 0 is this one; the others tell what they are made to tell."""

    device = CPU

    def __init__(self, *told: Any) -> None:  # noqa: ANN401
        super().__init__(told)

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        return [("a", value[1]), *self]


def engine(*told: tuple[str, object]) -> Engine:
    return cast(Engine, Others(*told))


# --- fingerprints


def test_the_same_bits_have_the_same_fingerprint() -> None:
    assert of(NUMBERS) == of(NUMBERS.clone())
    assert of(NUMBERS) == of(NUMBERS.contiguous(memory_format=torch.channels_last))
    assert of(NUMBERS, NUMBERS[0]) == of(NUMBERS.clone(), NUMBERS[0].clone())


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kind_of_number_has_one(dtype: torch.dtype) -> None:
    some = (NUMBERS * 3).to(torch.int64).abs().to(dtype)
    other = some.clone()
    other.view(-1)[7] = 0 if other.view(-1)[7] else 1
    assert of(some) == of(some.clone())
    assert of(some) != of(other)


@given(st.integers(0, NUMBERS.numel() - 1), st.integers(0, 31))
def test_any_single_bit_changes_it(place: int, bit: int) -> None:
    other = NUMBERS.clone()
    other.view(-1).view(torch.int32)[place] ^= -(2**31) if bit == 31 else 2**bit
    assert of(NUMBERS) != of(other)


@given(st.lists(st.integers(0, NUMBERS.numel() - 1), min_size=1, max_size=16, unique=True), st.integers(0, 31))
def test_the_same_bit_in_many_places_changes_it(places: list[int], bit: int) -> None:
    other = NUMBERS.clone()
    other.view(-1).view(torch.int32)[places] ^= -(2**31) if bit == 31 else 2**bit
    assert of(NUMBERS) != of(other)


def test_order_counts() -> None:
    first, second = NUMBERS[0], NUMBERS[1]
    assert of(first, second) != of(second, first)
    assert of(NUMBERS.flatten()) != of(NUMBERS.flatten().flip(0))
    assert of(torch.zeros(3)) != of(-torch.zeros(3))


def test_large_tensors_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # No multiple of the piece, and the same piece twice with something in between.
    many = torch.arange(2 * agreement._CHUNK + 5, dtype=torch.float32)
    for place in (0, agreement._CHUNK - 1, agreement._CHUNK, len(many) - 1):
        other = many.clone()
        other[place] += 1
        assert of(many) != of(other)
    swapped = torch.cat([many[agreement._CHUNK : 2 * agreement._CHUNK], many[: agreement._CHUNK], many[-5:]])
    assert of(many) != of(swapped)


def test_numbers_that_are_none_have_one() -> None:
    assert of(torch.tensor([float("nan"), float("inf")])) == of(torch.tensor([float("nan"), float("inf")]))
    assert of() == of(torch.zeros(0)) == 0


# --- what is refused at the start


def test_the_setting_that_differs_is_named() -> None:
    mine: dict[str, Any] = {"train.steps": 6, "model.norm": "group"}
    check_same_settings(engine(), mine)
    check_same_settings(engine(("b", dict(mine)), ("c", dict(mine))), mine)
    with pytest.raises(UserError, match=r"^process 2 on c has train.steps 7, process 0 on a has 6: start all"):
        check_same_settings(engine(("b", dict(mine)), ("c", mine | {"train.steps": 7})), mine)


def test_a_setting_that_another_version_does_not_have_is_named() -> None:
    with pytest.raises(UserError, match=r"^process 1 on b has new.key None, process 0 on a has 1"):
        check_same_settings(engine(("b", {"old.key": 2})), {"new.key": 1, "old.key": 2})


def test_who_differs_is_named_with_the_way_out() -> None:
    check_same(engine(("b", "12ab")), "runs other code", "12ab", "install")
    with pytest.raises(UserError, match=r"^process 1 on b runs other code than process 0 on a: install$"):
        check_same(engine(("b", "ffff")), "runs other code", "12ab", "install")


def test_another_pytorch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Others, "gather", lambda self, value: [value, ("b", code_digest())])
    with pytest.raises(UserError, match="runs another version of PyTorch than process 0"):
        check_same_code(engine())


def test_the_code_digest_changes_with_the_code(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    (tmp_path / "engine").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "run" / "provenance.py"))
    digests = {code_digest()}
    for name, text in (("a.py", "x"), ("a.py", "y"), ("engine/a.py", "y"), ("engine/b.py", "")):
        (tmp_path / name).write_text(text)
        digests.add(code_digest())
    assert len(digests) == 5
    (tmp_path / "notes.txt").write_text("no code")
    assert code_digest() in digests


# --- what is refused while training


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Engine, Any]]:
    """An engine, and a task that has learned for a step."""
    with alone_on_the_cpu(monkeypatch):
        config = tiny(train__precision="fp64")
        made, task = Engine("fp64"), build_task(config)
        made.prepare(task, build_networks(task, config))
        made.step(task, [random_batch(4)], 0)
        yield made, task


def copies(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the process tells of its networks now."""
    told: list[Any] = []

    def gather(value: object) -> list[Any]:
        told.append(value)
        return told

    monkeypatch.setattr(engine, "world_size", 3)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "gather", gather)
        check_replicas(engine, 0)
    return told


PARTS: list[tuple[str, Callable[[Any], Tensor]]] = [
    ("weights", lambda network: next(network.module.parameters()).data),
    ("optimizer states", lambda network: next(iter(network.optimizer.state.values()))["exp_avg"]),
    ("averaged weights", lambda network: next(network.ema.module.parameters()).data),
]


@pytest.mark.parametrize(("part", "tensor"), PARTS)
@pytest.mark.parametrize(("healthy", "told"), [(1, "process 1 on .* process 0's"), (2, "process 2 on .* process 0's")])
def test_a_replica_that_differs_in_the_last_bit_is_named(
    part: str,
    tensor: Callable[[Any], Tensor],
    healthy: int,
    told: str,
    trained: tuple[Engine, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, _ = trained
    right = copies(engine, monkeypatch)
    tensor(engine.networks["generator"]).view(torch.int64).view(-1)[0] ^= 1
    monkeypatch.setattr(engine, "gather", lambda value: right * healthy + [value])
    sides = told.replace(" process 0's", " differ from process 0's")
    with pytest.raises(RunError, match=rf"^the generator's {part} on {sides} at step 500: .*last checkpoint$"):
        check_replicas(engine, 500)


def test_the_first_process_is_named_when_it_is_the_odd_one(
    trained: tuple[Engine, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = trained
    right = copies(engine, monkeypatch)
    next(engine.networks["discriminator"].module.parameters()).data.view(torch.int64).view(-1)[0] ^= 1
    monkeypatch.setattr(engine, "gather", lambda value: [value] + right * 2)
    with pytest.raises(RunError, match=r"^the discriminator's weights on process 0 on .* differ from process 1's"):
        check_replicas(engine, 500)


def test_before_the_first_step_there_are_no_optimizer_states(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on_the_cpu(monkeypatch):
        made, task = Engine("fp32"), build_task(tiny())
        made.prepare(task, build_networks(task, tiny()))
        check_replicas(made, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("part", "tensor"), [PARTS[0], PARTS[2]])
def test_weights_that_are_no_numbers_are_refused_on_one_process_too(
    part: str,
    tensor: Callable[[Any], Tensor],
    value: float,
    trained: tuple[Engine, Any],
) -> None:
    engine, _ = trained
    check_replicas(engine, 500)
    tensor(engine.networks["generator"]).view(-1)[-1] = value
    with pytest.raises(RunError, match=rf"^the generator's {part} on process 0 on .* are not finite at step 500: try"):
        check_replicas(engine, 500)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_inf_and_nan_are_found_in_every_place_and_large_numbers_are_none(dtype: torch.dtype) -> None:
    for count in (1, 7, 64, 40_001):
        most = torch.finfo(dtype).max
        assert agreement._is_finite([torch.full((count,), most, dtype=dtype), torch.tensor(3)])
        for value in (float("nan"), float("inf"), -float("inf")):
            for place in {0, count // 2, count - 1}:
                values = torch.full((count,), -most, dtype=dtype)
                values[place] = value
                assert not agreement._is_finite([torch.ones(3), values])
