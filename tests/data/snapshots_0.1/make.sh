#!/bin/sh
# Train the networks of this folder with version 0.1 (commit 1291670), from its root: make.sh FOLDER. Seconds each.
set -eu
out=$1

snapshot() {
    name=$1
    shift
    python -m colordist.train --run.dir "$out/runs/$name" \
        --data.source synthetic --data.image_size 16 --data.train_images 64 --data.test_images 8 \
        --model.width 4 --model.depth 2 --discriminator.width 4 --discriminator.depth 2 --loss.warmup_steps 5 \
        --optimizer.generator.warmup_steps 5 --train.steps 30 --train.ema_images 64 --train.precision fp32 "$@"
    mkdir -p "$out/$name"
    cp "$out/runs/$name/snapshots/latest/"* "$out/$name/"
}

snapshot unet --task cgan
snapshot unet-rgb --task cgan --model.color_space rgb
snapshot unet-noise --task cgan --model.noise 3 --loss.candidates 6
snapshot unet-attention --task cgan --model.blocks 1 --model.attention_level 1
snapshot unet-instance --task cgan --model.norm instance
snapshot unet-none --task cgan --model.norm none
snapshot unet-batch --task cgan --model.norm batch
snapshot unet-fp64 --task cgan --train.precision fp64
snapshot autoencoder --task autoencoder
snapshot autoencoder-rgb --task autoencoder --model.color_space rgb --model.bottleneck 6
snapshot cyclegan --task cyclegan

# What they answer on one grey image: the network's own output, and the picture.
python - "$out" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import colordist
from colordist import snapshot

out = Path(sys.argv[1])
random = np.random.default_rng(1)
coarse = Image.fromarray(random.integers(0, 256, (5, 5), dtype=np.uint8))
picture = coarse.resize((16, 16), Image.Resampling.BICUBIC)
picture.save(out / "grey.png")
grey = torch.from_numpy(np.array(picture)).float()[None, None] / 127.5 - 1
answers = {}
for folder in sorted(path.parent for path in out.glob("*/model.json")):
    network, model, _ = snapshot.read(folder)
    colorizer = colordist.load(folder)
    inputs = [grey, torch.eye(model.noise)] if model.noise else [grey]
    dtype = next(network.parameters()).dtype
    with torch.no_grad():
        answers[f"{folder.name}/output"] = network(*(each.to(dtype) for each in inputs)).float()
    pictures = [np.array(colorizer(picture, variant)) for variant in range(colorizer.answers)]
    answers[f"{folder.name}/picture"] = torch.from_numpy(np.stack(pictures))
save_file(answers, out / "answers.safetensors")
PYTHON
rm -r "$out/runs"
