"""Files of a run, mutated, through every verb that reads them."""

from pathlib import Path
from typing import Any

import pytest
from forking import call, require_civil
from hypothesis import given
from hypothesis import strategies as st
from material import AUTOENCODER, TINY, cases, fresh
from mutations import mutated

FILES = (
    "config.yaml",
    "metrics.jsonl",
    "metrics.json",
    "images",
    "wandb.json",
    "finished",
    "lock/*.json",
    "samples/*.png",
    "evaluation-synthetic.json",
    "checkpoints/*/manifest.json",
    "checkpoints/*/state.pt",
    "snapshots/step-*/model.json",
    "snapshots/step-*/model.safetensors",
    "snapshots/step-*/README.md",
)
CONTINUE = ["train", *TINY, *AUTOENCODER, "--run.dir", "run", "--train.steps", "6"]
READERS: dict[str, tuple[list[list[str]], int]] = {
    "config.yaml": ([["report", "run", "-o", "r.png"], ["report", "--list", "."], ["evaluate", "run"], CONTINUE], 25),
    "metrics.jsonl": ([["report", "run"], ["report", "--list", "."], CONTINUE], 25),
    "metrics.json": ([["report", "run"], CONTINUE], 10),
    "checkpoints/*/manifest.json": ([CONTINUE], 10),
    "checkpoints/*/state.pt": ([CONTINUE], 10),
    "snapshots/step-*/model.json": ([["colorize", "run", "photo.png", "-o", "out"], ["evaluate", "run"],
                                     ["push", "run", "a/b", "--dry_run"], ["export", "run", "--onnx", "x.onnx"]], 25),
    "snapshots/step-*/model.safetensors": ([["colorize", "run", "photo.png", "-o", "out"], ["evaluate", "run"],
                                            ["train", *TINY, "--train.init_from", "run", "--train.steps", "1"]], 25),
    "samples/*.png": ([["report", "run"], ["report", "run", "-o", "r.png"]], 15),
    "lock/*.json": ([[*CONTINUE, "--run.heartbeat_timeout", "1"]], 8),
    "images": ([CONTINUE, ["report", "run"]], 10),
    "finished": ([CONTINUE, ["report", "--list", "."]], 10),
    "evaluation-synthetic.json": ([["evaluate", "run"]], 10),
}  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.parametrize("pattern", READERS)
def test_a_damaged_file_is_named_in_one_line(pattern: str, trained: Path, photo: Path, place: Path) -> None:
    readers, count = READERS[pattern]
    files = sorted(file.relative_to(trained.parent) for file in trained.glob(pattern) if not file.parent.is_symlink())
    assert files

    @cases(count)
    @given(st.data())
    def check(data: Any) -> None:  # noqa: ANN401
        fresh(place, trained, photo)
        file = place / data.draw(st.sampled_from(files))
        content = data.draw(mutated(file.name, file.read_bytes()))
        file.write_bytes(content)
        require_civil(call(data.draw(st.sampled_from(readers)), place))

    check()
