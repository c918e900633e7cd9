"""The classifier that judges colours: what it learns, how it is kept, and scores by it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from class_images import coloured, image_folder, words
from helpers import alone_on_the_cpu, tiny

from colordist.classifier import parse
from colordist.classifier import train as train_classifier
from colordist.cli.parser import Command
from colordist.config import UserError
from colordist.data.sampler import Sampler, SampleSlice
from colordist.evaluate import evaluate
from colordist.evaluate import parse as parse_evaluate
from colordist.evaluation.classifier_training import accuracy, augmented, train
from colordist.metrics import classifier_file
from colordist.metrics.classifier_file import About
from colordist.models.classifier import FEATURES, Classifier, scaled
from colordist.run.folder import RunFolder
from colordist.train import train as train_run

ABOUT = About(("azure", "green", "rose"), 16, "0 1", 5, 0, 90.0, 33.3)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with alone_on_the_cpu(monkeypatch):
        monkeypatch.setattr("colordist.engine.runtime.share_cores", lambda: torch.set_num_threads(1))
        torch.set_num_threads(1)  # networks this small are slower on several, where others work beside
        yield


def randomized() -> Classifier:
    """One whose every weight and every running mean counts."""
    torch.manual_seed(0)
    classifier = Classifier(3)
    classifier(torch.randn(4, 3, 16, 16))
    return classifier.eval()


# --- training


def test_it_learns_colours_and_nothing_else() -> None:
    images, labels = coloured(0, 12)
    torch.manual_seed(0)
    classifier = train(Classifier(3), images, labels, epochs=10, seed=0, bf16=False)
    unseen, target = coloured(1, 20)
    assert accuracy(classifier, unseen, target) > 90
    grey = unseen.float().mean(dim=1, keepdim=True).byte().expand_as(unseen)
    luma_only = torch.cat([grey[:20]] * 3)  # as the three colours of a blotch have the same grey
    assert accuracy(classifier, luma_only, target) == pytest.approx(100 / 3)


def test_the_same_seed_gives_the_same_bits() -> None:
    images, labels = coloured(0, 8)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        found.append(train(Classifier(3), images, labels, epochs=2, seed=seed, bf16=False).head.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_images_are_mirrored_and_shifted_as_the_plan_says() -> None:
    image = torch.arange(3 * 16 * 16).reshape(1, 3, 16, 16) % 251
    uniforms = np.full((1, 8), 0.5)
    uniforms[0, :2] = 0.99, 0.12  # down by 4, to the left by 3
    found = augmented(
        image, SampleSlice(**(vars(Sampler(0, 1, 1, True).step(0)) | {"flip": np.array([True]), "uniforms": uniforms}))
    )
    mirrored = image.flip(-1)
    assert torch.equal(found[..., :12, 3:], mirrored[..., 4:, :13])
    assert torch.equal(found[..., 12:, 3:], mirrored[..., [14, 13, 12, 11], :][..., :13])  # the edge in the mirror
    assert torch.equal(found[..., :12, 2], mirrored[..., 4:, 1])


# --- what is kept


def test_round_trip(tmp_path: Path) -> None:
    classifier = randomized()
    classifier_file.write(tmp_path / "kept", classifier, ABOUT)
    found, about, digest = classifier_file.read(tmp_path / "kept")
    assert about == ABOUT
    assert len(digest) == 64
    rgb = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(found(scaled(rgb)), classifier(scaled(rgb)))
    assert found.features(scaled(rgb)).shape == (2, FEATURES)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def _without_a_key(folder: Path) -> None:
    about = json.loads((folder / "classifier.json").read_text())
    del about["image_size"]
    (folder / "classifier.json").write_text(json.dumps(about))


def _newer(folder: Path) -> None:
    file = folder / "classifier.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 2'))


def _another_bit(folder: Path) -> None:
    data = bytearray((folder / "classifier.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "classifier.safetensors").write_bytes(data)


def _fewer_classes(folder: Path) -> None:
    file = folder / "classifier.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"classes": ["rose"]}))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: (folder / "classifier.json").unlink(), "holds no classifier"),
        (lambda folder: (folder / "classifier.safetensors").unlink(), "holds no classifier"),
        (lambda folder: (folder / "classifier.json").write_text("{"), "is damaged"),
        (_without_a_key, "classifier.json has no image_size"),
        (_newer, "has classifier format 2, but this version reads 1"),
        (_another_bit, "classifier.safetensors is not what was written"),
        (_fewer_classes, "is damaged"),
    ],
)
def test_damage_is_one_line(harm: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    classifier_file.write(tmp_path / "kept", randomized(), ABOUT)
    harm(tmp_path / "kept")
    with pytest.raises(UserError) as refusal:
        classifier_file.read(tmp_path / "kept")
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


# --- the verb


def test_from_images_to_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train a classifier on a folder of images, a run on the same, and score by it, while training and afterwards."""
    root = image_folder(tmp_path / "images")
    train_classifier(*parse(words(root, tmp_path / "classifier")))
    about = classifier_file.read(tmp_path / "classifier")[1]
    assert about.classes == ("azure", "green", "rose")
    assert about.accuracy > 60 > 40 > about.accuracy_on_grey == pytest.approx(100 / 3)
    assert "% on the test images" in capsys.readouterr().out

    settings = {"data__source": "folder", "data__root": str(root), "data__image_size": 16}
    folder = RunFolder(tmp_path / "run")
    chosen = {"evaluate__metrics": [{"name": "classifier", "folder": str(tmp_path / "classifier")}]}
    train_run(Command(tiny(run__dir=str(folder.path), **settings, **chosen), Path("tiny.yaml"), False))
    logged = folder.records()[-1]
    evaluate(*parse_evaluate([str(folder.path)]))
    found = json.loads((folder.path / "evaluation-folder.json").read_text())
    assert found["networks"][0].startswith("classifier ")
    for name in ("classifier_frechet", "classifier_kernel", "classifier_accuracy"):
        assert found["scores"][name] == pytest.approx(logged[f"score/{name}"])
    target, grey = found["references"]["target"], found["references"]["grey"]
    assert target["classifier_frechet"] == pytest.approx(0, abs=1e-9)
    assert target["classifier_kernel"] == 0
    assert target["classifier_accuracy"] == pytest.approx(about.accuracy)
    assert grey["classifier_accuracy"] == pytest.approx(100 / 3)
    assert grey["classifier_frechet"] > 0
    assert "Accuracy % (custom classifier)" in capsys.readouterr().out

    with pytest.raises(UserError, match=r"takes images of 16 pixels, but data\.image_size is 32"):
        evaluate(*parse_evaluate([str(folder.path), "--data.image_size", "32"]))


def test_where_classes_are_not_known_nothing_is_named(tmp_path: Path) -> None:
    classifier_file.write(tmp_path / "kept", randomized(), ABOUT)
    chosen = {"evaluate__metrics": [{"name": "classifier", "folder": str(tmp_path / "kept")}], "data__image_size": 16}
    for name, settings in {
        "synthetic": {},
        "folder": {"data__source": "folder", "data__root": str(image_folder(tmp_path / "i", ("rose", "azure", "red")))},
    }.items():
        folder = tmp_path / name
        train_run(Command(tiny(run__dir=str(folder), **chosen, **settings), Path("tiny.yaml"), False))
        logged = RunFolder(folder).records()[-1]
        assert {"score/classifier_frechet", "score/classifier_kernel"} < set(logged)
        assert "score/classifier_accuracy" not in logged


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    (tmp_path / "notes").mkdir()
    single = image_folder(tmp_path / "single", ("rose",))
    for arguments, told in {
        (*words(root, tmp_path / "out")[:6],): "no output folder",
        (*words(root, tmp_path / "notes"),): "is no classifier, or holds other files, too: name another folder",
        (*words(single, tmp_path / "out"),): "no labels of two classes or more",
        (*words(root, tmp_path / "out", "--epochs", "0"),): "--epochs is 0, but must be at least 1",
        (*words(root, tmp_path / "out", "--data.sorce", "x"),): "unknown key data.sorce",
    }.items():
        with pytest.raises(UserError) as refusal:
            train_classifier(*parse(list(arguments)))
        assert told in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert (tmp_path / "notes").is_dir()
    with pytest.raises(UserError, match="nowhere holds no classifier"):
        train_run(
            Command(
                tiny(run__dir=str(tmp_path / "run"), evaluate__metrics=[{"name": "classifier", "folder": "nowhere"}]),
                None,
                False,
            )
        )
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--epochs many", "epochs is 'many', but must be a whole number"),
        ("--precision fp16", "precision is 'fp16', but must be one of auto, fp32, bf16"),
        ("--task.name cgan", "unknown key task.name"),
        ("--data.source folder --data.train_images 5", "choose --data.source synthetic"),
    ],
)
def test_mistake_on_the_command_line(arguments: str, told: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(["-o", "classifier", *arguments.split()])
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
