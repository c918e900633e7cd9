"""Two processes train the same as one, and no launch trains independent copies."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from class_images import image_folder
from helpers import fitting
from runs import everything, tensors

from colordist.run.folder import RunFolder
from launch import TINY_GAN, arguments, records, start, train

pytestmark = pytest.mark.dist


def test_two_processes_are_equal_to_one(tmp_path: Path) -> None:
    """Same losses, scores and weights in fp64: two processes with accumulation, one without.

    From a folder of images: rank 0 decodes them, and the other reads its cache. Nothing imports PyTorch's compiler.
    """
    root = image_folder(tmp_path / "images")
    settings = fitting(TINY_GAN, {"data.source": "folder", "data.root": root})
    for processes, micro in ((1, 12), (2, 4)):
        cache = tmp_path / f"cache-{processes}"
        more = arguments(settings, run__dir=tmp_path / str(processes), train__micro_batch_size=micro)
        done = train(*more, processes=processes, XDG_CACHE_HOME=str(cache), PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode == 0, done.stderr
        assert " torch\n" in done.stderr
        assert " torch._dynamo\n" not in done.stderr
        assert any(cache.rglob("*"))

    alone, both = records(tmp_path / "1"), records(tmp_path / "2")
    assert [line.keys() for line in alone] == [line.keys() for line in both]
    for one, two in zip(alone, both, strict=True):
        assert two == pytest.approx(one, rel=1e-9, abs=1e-12)

    expected, found = (tensors(everything(RunFolder(tmp_path / processes))) for processes in ("1", "2"))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("flags", [(), ("--cpu",)])
def test_a_launcher_that_starts_too_few_processes_is_refused(flags: tuple[str, ...], tmp_path: Path) -> None:
    done = train(*arguments(TINY_GAN, run__dir=tmp_path / "run"), processes=2, flags=flags)
    assert done.returncode != 0
    assert done.stderr.count("started only one: add --multi_gpu") == 1
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_is_reported_once_and_first(tmp_path: Path) -> None:
    done = train(*arguments(TINY_GAN, run__dir=tmp_path / "run", train__global_batch_size=13), processes=2)
    assert done.returncode != 0
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("colordist:")]
    assert mistakes == [
        "colordist: train.global_batch_size is 13, which 2 processes can't share equally: try 12 or 14, or one of 1 "
        "processes"
    ]
    assert done.stderr.index("colordist:") < done.stderr.index("Traceback")
    assert not (tmp_path / "run").exists()


def test_answers_are_judged_the_same_by_two_processes(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "images") / "test"
    answers = tmp_path / "answers"
    shutil.copytree(photos / "rose", answers / "azure")
    shutil.copytree(photos / "azure", answers / "rose")
    shutil.copytree(photos / "green", answers / "green")
    found = []
    for processes in (1, 2):
        file = tmp_path / f"{processes}.json"
        more = ("--truth", str(photos), "--json", str(file))
        done = start("colordist.evaluate", "--answers", str(answers), *more, processes=processes)
        assert done.returncode == 0, done.stderr
        found.append(file.read_text())
    assert found[0] == found[1]
    assert json.loads(found[0])["per_image"]["answers"][4:8] == [0.0] * 4  # green


def test_a_missing_answer_is_reported_once_by_two_processes(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "images") / "test"
    answers = shutil.copytree(photos, tmp_path / "answers")
    (answers / "rose" / "1.png").unlink()
    done = start("colordist.evaluate", "--answers", str(answers), "--truth", str(photos), processes=2)
    assert done.returncode != 0
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("colordist:")]
    assert len(mistakes) == 1
    assert "has no answer to 1 of 12 photographs (rose/1)" in mistakes[0]


def test_data_that_one_process_cannot_find_stops_all_with_one_line(tmp_path: Path) -> None:
    settings = fitting(TINY_GAN, {"data.source": "folder", "data.root": tmp_path / "nowhere"})
    done = train(*arguments(settings, run__dir=tmp_path / "run"), processes=2)
    assert done.returncode != 0
    assert done.stderr.count("colordist:") == 1
    assert str(tmp_path / "nowhere") in done.stderr
    assert not (tmp_path / "run").exists()
