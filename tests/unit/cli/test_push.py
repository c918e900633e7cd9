"""push: one commit with a card that the Hub takes; private unless said otherwise; what goes wrong is one line."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import alone_on_the_cpu, random_generator, tiny, write_snapshot
from hub import TOKEN, Hub, asking
from huggingface_hub import ModelCard
from PIL import Image

import colordist
from colordist.push import main
from colordist.run.folder import RunFolder
from colordist.run.model_card import FOLDER

FILES = {".gitattributes", "README.md", "model.json", "model.safetensors"}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    monkeypatch.chdir(tmp_path)
    with alone_on_the_cpu(monkeypatch), asking(Hub(), tmp_path / "cache", monkeypatch) as served:
        yield served


@pytest.fixture(autouse=True)
def folder(hub: Hub) -> RunFolder:
    """A run with a snapshot and its sample grid."""
    run, model = RunFolder(Path("run")), tiny(task__name="autoencoder", model__name="autoencoder").model
    about: dict[str, Any] = {
        "step": 6,
        "image_size": 32,
        "source": "folder",
        "scores": {"psnr": 25.5, "mae": float("nan")},
    }
    saved = run.snapshots / "step-000006"
    write_snapshot(saved, model, random_generator(model, 0.1), **about, init_from=f"you/base@{'a' * 40}")
    (saved / "README.md").write_text(
        f"# A network\n\nAbout it.\n\n## Use\n\n    colordist colorize {FOLDER} photo.jpg\n"
    )
    run.config_file.write_text("seed: 0\n")
    run.samples.mkdir()
    Image.new("RGB", (8, 8), "red").save(run.samples / "step-000006.png")
    return run


class Command:
    """``colordist push`` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run it. Returns output and errors."""
        self.monkeypatch.setattr("sys.argv", ["colordist push", *arguments])
        found = 0
        try:
            main()
        except SystemExit as end:
            found = int(end.code or 0)
        said = self.capsys.readouterr()
        assert TOKEN not in said.out + said.err
        assert found == code, said.err
        return said.out, said.err

    def refused(self, *arguments: str) -> str:
        """The one line that it is refused with."""
        out, error = self(*arguments, "--license", "mit", code=2)
        assert out == ""
        assert error.count("\n") == 1, error
        return error.removeprefix("colordist: ").strip()


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_what_is_pushed_can_be_loaded(hub: Hub, push: Command) -> None:
    out, error = push("run", "me/tiny")
    repo = hub.repos["me/tiny"]
    assert repo.private
    assert repo.messages == ["initial commit", "Upload step 6"]
    commit = repo.branches["main"]
    assert out == (
        f"{hub.address}/me/tiny/commit/{commit}: step 6, private\ncolordist colorize me/tiny PHOTOS -o OUT\n"
    )
    assert error == "no licence: --license ID names one, as apache-2.0\n"
    files = repo.commits[commit]
    assert {*files} == FILES | {"samples.png"}
    assert files["samples.png"] == Path("run/samples/step-000006.png").read_bytes()
    assert not any(TOKEN.encode() in each for each in files.values())
    photo = Image.linear_gradient("L").resize((40, 32))
    assert colordist.load("me/tiny")(photo).tobytes() == colordist.load("run")(photo).tobytes()


def test_the_card(hub: Hub, push: Command) -> None:
    push("run/snapshots/latest", "me/tiny", "--license", "mit", "--message", "First")
    assert hub.repos["me/tiny"].messages[-1] == "First"
    assert "POST /api/validate-yaml" in hub.requests
    text = hub.repos["me/tiny"].commits[hub.repos["me/tiny"].branches["main"]]["README.md"].decode()
    data: Any = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("colordist", "image-to-image", "mit")
    assert data.base_model == "you/base"
    assert data.tags == ["colorization", "image-colorization", "autoencoder"]
    (result,) = data.eval_results or []  # NaN is no score
    assert (result.metric_type, result.metric_name, result.metric_value) == ("psnr", "PSNR dB", 25.5)
    assert (result.dataset_type, result.dataset_name, data.model_name) == ("folder", "folder, 32x32 pixels", "tiny")
    assert yaml.safe_load(text.split("---\n")[1]) == data.to_dict()
    assert text.split("---\n", 2)[2] == (
        "\n# A network\n\nAbout it.\n\n![test images: grey, answer, original](samples.png)\n\n## Use\n\n"
        "    colordist colorize me/tiny photo.jpg\n"
    )


def test_front_matter_that_is_there_stays(hub: Hub, push: Command, folder: RunFolder) -> None:
    card = folder.snapshots / "latest" / "README.md"
    card.write_text("---\nlicense: mit\ntags: [portraits]\nlanguage: en\n---\n" + card.read_text())
    text, _ = push("run", "me/tiny", "--dry_run")
    data: Any = ModelCard(text[text.index("---\n") :]).data
    assert (data.license, data.tags, data.language, data.library_name) == ("mit", ["portraits"], "en", "colordist")
    card.write_text("---\n- a list\n---\n")
    assert push.refused("run", "me/tiny").startswith("README.md of the snapshot has front matter that can't be read (")


def test_a_dry_run_needs_neither_network_nor_token(
    hub: Hub, push: Command, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    out, _ = push("run", "me/tiny@new", "--dry_run", "--public")
    assert out.startswith("me/tiny@new, public: step 6 of run, one commit\n")
    size = (folder.snapshots / "latest" / "model.safetensors").stat().st_size
    assert f"model.safetensors{size:>15,} bytes\n" in out
    assert "samples.png" in out
    assert "\n\n---\nbase_model: you/base\nlibrary_name: colordist\n" in out
    assert hub.requests == []


def test_only_what_has_changed_is_sent_again(hub: Hub, push: Command) -> None:
    push("run", "me/tiny")
    uploads = len(hub.large)
    push("run", "me/tiny")
    push("run", "me/tiny", "--no_samples", "--license", "mit")
    repo = hub.repos["me/tiny"]
    assert {*repo.commits[repo.branches["main"]]} == FILES
    assert len([each for each in hub.requests if each.startswith("PUT")]) == uploads == 2


def test_a_branch(hub: Hub, push: Command) -> None:
    push("run", "me/tiny@exp/1")
    repo = hub.repos["me/tiny"]
    assert {*repo.commits[repo.branches["exp/1"]]} == FILES | {"samples.png"}
    assert {*repo.commits[repo.branches["main"]]} == {".gitattributes"}
    assert colordist.load("me/tiny@exp/1").resolution == 32
    push("run", "me/tiny@exp/1", "--license", "mit")
    assert len(repo.commits) == 3


def test_private_unless_said_otherwise(hub: Hub, push: Command) -> None:
    push("run", "me/open", "--public")
    assert not hub.repos["me/open"].private
    assert push.refused("run", "me/open") == "the Hub's me/open is public: add --public, or name another"
    push("run", "me/closed")
    assert push.refused("run", "me/closed", "--public").startswith("--public: the Hub's me/closed is private: leave")
    assert [len(each.commits) for each in hub.repos.values()] == [2, 2]


@pytest.mark.parametrize("foreign", [{"config.json": b"{}", "a.bin": b"1"}, {"model.json": b"{}", "a.bin": b"1"}])
def test_another_programs_model_stays(hub: Hub, push: Command, foreign: dict[str, bytes]) -> None:
    before = hub.add("me/bert", foreign, private=True)
    line = push.refused("run", "me/bert")
    assert line.startswith("the Hub's me/bert holds no snapshot but a.bin, ")
    assert "add --overwrite (its history keeps what is replaced)" in line
    repo = hub.repos["me/bert"]
    assert len(repo.commits) == 1
    push("run", "me/bert", "--overwrite")
    assert repo.commits[before] == foreign
    assert repo.commits[repo.branches["main"]]["a.bin"] == b"1"


# --- mistakes and failures


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (401, "Invalid credentials in Authorization header", "the Hub refuses the token"),
        (403, f"{TOKEN} may not write", "the Hub denies it: me/tiny can't be created (*** may not write): use a token"),
        (500, f"Bearer {TOKEN}", "the Hub's me/tiny can't be created now ("),
    ],
)
def test_an_error_of_the_hub(hub: Hub, push: Command, status: int, message: str, told: str) -> None:
    hub.status["repos/create"] = status, message
    assert told in push.refused("run", "me/tiny")


def test_without_a_token(hub: Hub, push: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert push.refused("run", "me/tiny") == (
        "the Hub needs a token that may write: `hf auth login`, or HF_TOKEN (https://huggingface.co/settings/tokens)"
    )
    assert hub.requests == []


def test_a_token_that_is_none(push: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "my secret\x01é")
    assert "secret" not in push.refused("run", "me/tiny")


def test_an_interrupted_upload_leaves_nothing_and_continues(hub: Hub, push: Command) -> None:
    hub.status["/commit/"] = 503, "busy"
    assert "the Hub's me/tiny can't be written to now (busy): the same command tries again" in push.refused(
        "run", "me/tiny"
    )
    repo = hub.repos["me/tiny"]
    assert {*repo.commits[repo.branches["main"]]} == {".gitattributes"}
    hub.status.clear()
    hub.requests.clear()
    push("run", "me/tiny")
    assert {*repo.commits[repo.branches["main"]]} == FILES | {"samples.png"}
    assert not any(each.startswith("PUT") for each in hub.requests)


def test_a_failed_upload_of_a_file(hub: Hub, push: Command) -> None:
    hub.status["/large/"] = 403, "signature expired"
    assert "(signature expired)" in push.refused("run", "me/tiny")


def test_a_license_that_the_hub_does_not_know(hub: Hub, push: Command) -> None:
    _, error = push("run", "me/tiny", "--license", "none", code=2)
    assert error.startswith("colordist: the Hub refuses it (")
    assert '"license" must be one of [apache-2.0, mit]' in error
    assert error.count("\n") == 1


def test_offline(push: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert push.refused("run", "me/tiny").endswith("can't be written to, as HF_HUB_OFFLINE is set: unset that once")


@pytest.mark.parametrize(
    ("run", "name", "told"),
    [
        ("run", "tiny", "'tiny' is no name on the Hub: give user/name"),
        ("run", "me/tiny/x", "'me/tiny/x' is no name on the Hub: give user/name"),
        ("run", "me/a--b", "the Hub takes no name like me/a--b ("),
        ("nowhere", "me/tiny", "nowhere is neither a run nor a snapshot: give the folder of one"),
        ("you/theirs", "me/tiny", "you/theirs is neither a run nor a snapshot: give the folder of one"),
        ("empty", "me/tiny", "empty holds no snapshot yet: train it first"),
        ("damaged", "me/tiny", "the snapshot in damaged is damaged: "),
    ],
)
def test_a_mistake(hub: Hub, push: Command, folder: RunFolder, run: str, name: str, told: str) -> None:
    Path("empty/snapshots").mkdir(parents=True)
    shutil.copytree(folder.snapshots / "step-000006", "damaged")
    about = json.loads(Path("damaged/model.json").read_text()) | {"sha256": "0"}
    Path("damaged/model.json").write_text(json.dumps(about))
    assert push.refused(run, name).startswith(told)
    assert hub.repos == {}
