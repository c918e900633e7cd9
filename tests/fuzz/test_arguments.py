"""Arguments in any order and number, and the launchers' variables."""

import socket
from pathlib import Path

import pytest
from forking import call, require_civil
from hypothesis import given
from hypothesis import strategies as st
from material import cases, fresh
from values import PLAIN, TEXTS

from colordist.cli import VERBS

WORDS = {
    "train": ["--config", "--dry_run", "--print_config", "--run.dir", "run", "--train.steps", "1", "--resume", "never",
              "--data.root", "--data.source", "folder", "--data.classes", "[a", "--import", "os", "--task",
              "--model.name"],
    "evaluate": ["run", "--answers", "--truth", "photos", "--json", "-o", "a.json", "a.html", "--solver_steps", "2",
                 "--data.root", "--data.source", "--evaluate.metrics", "[lpips]", "--import", "--hints", "3"],
    "colorize": ["run", "photos", "photo.png", "-o", "out", "--resolution", "16", "--variants", "2", "--batch",
                 "--seed", "--overwrite", "--side_by_side", "--upsample", "guided", "photos-small", "*.png", "**",
                 "--saturation", "2", "--hints", "hints.json"],
    "export": ["run", "--onnx", "x.onnx", "--resolution", "--solver_steps", "photos-small"],
    "push": ["run", "a/b", "--dry_run", "--license", "mit", "--private", "--message"],
    "report": ["run", "run", "-o", "a.html", "a.png", "--list", "--sync", "--wandb", "."],
    "demo": ["run", "photos-small", "--port", "0", "--host", "127.0.0.1", "::1", "--queue", "--max_megabytes", "1",
             "--max_files", "--resolution", "16", "--upsample", "guided", "--saturation", "2", "--import"],
    "doctor": ["--quick", "--timeout", "--config"],
}  # fmt: skip
VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DYNAMO_BACKEND"),
    *("ACCELERATE_DEEPSPEED_ZERO_STAGE", "ACCELERATE_GRADIENT_CLIPPING", "ACCELERATE_USE_FSDP"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "PMI_SIZE", "CXX", "HOME", "TMPDIR", "COLUMNS"),
    *("WANDB_MODE", "WANDB_API_KEY", "HF_ENDPOINT", "TERM", "NO_COLOR"),
)
NO_VARIABLE = st.dictionaries(st.nothing(), st.nothing())


def passable(text: str) -> str:
    """Text that a program can be given."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


@pytest.mark.fuzz
@pytest.mark.parametrize("verb", VERBS)
def test_any_arguments(verb: str, trained: Path, photo: Path, place: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    words = st.one_of(st.sampled_from(WORDS[verb]), st.sampled_from(WORDS[verb]), TEXTS.map(passable))

    @cases(50)
    @given(st.lists(words, max_size=6))
    def check(arguments: list[str]) -> None:
        fresh(place, trained, photo)
        (place / "photos").mkdir()
        small = ["--train.steps", "1", "--data.train_images", "8", "--data.test_images", "4", "--model.width", "4"]
        if verb == "train":  # never the quickstart itself
            arguments = [*arguments, *small, "--dry_run"]
        if verb == "doctor":
            arguments = [*arguments, "--quick"]
        if verb == "demo":  # it never serves, as the port is taken
            arguments = [*arguments, "--host", "127.0.0.1", "--port", str(listener.getsockname()[1])]
        if verb == "report":  # nothing listens there
            arguments = [each for each in arguments if each not in ("--sync", "--wandb")]
        require_civil(call([verb, *arguments], place))

    with listener:
        check()


@pytest.mark.fuzz
@cases(80)
@given(
    environment=st.dictionaries(
        st.sampled_from(VARIABLES),
        st.one_of(st.sampled_from(["0", "1", "2", "true", "no", "-1", "99999", "x"]), PLAIN.map(str)).map(passable),
        min_size=1,
        max_size=3,
    ),
    verb=st.sampled_from(["train", "report", "colorize"]),
)
def test_any_environment(environment: dict[str, str], verb: str, trained: Path, photo: Path, place: Path) -> None:
    fresh(place, trained, photo)
    arguments = {
        "train": ["--dry_run", "--model.width", "4", "--train.global_batch_size", "4", "--data.image_size", "16"],
        "report": ["run"],
        "colorize": ["run", "photo.png", "-o", "out"],
    }
    require_civil(call([verb, *arguments[verb]], place, environment))
