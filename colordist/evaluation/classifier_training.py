"""Training of the classifier, on one process: a short loop without the trainer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from colordist.data.loader import in_batches
from colordist.data.sampler import Sampler, SampleSlice
from colordist.models.classifier import Classifier, scaled

_BATCH = 128
_MIN_STEPS = 8  # per epoch: BatchNorm's running statistics need some to converge
_LEARNING_RATE = 3e-3
_WARMUP = 0.15  # of all steps
_SHIFT = 4  # pixels; of 32
_SMOOTHING = 0.1


def train(classifier: Classifier, images: Tensor, labels: Tensor, *, epochs: int, seed: int, bf16: bool) -> Classifier:
    """Train a classifier with flips and shifts, but no colour augmentation, as it has to learn colours.

    images: uint8 [N, 3, H, W]; labels: int64 [N]; on the classifier's device. bf16: autocast to bfloat16. Returns the
    classifier in eval mode.
    """
    sampler = Sampler(seed, len(images), min(_BATCH, max(2, len(images) // _MIN_STEPS)), flip=True)
    steps = max(1, epochs * len(images) // sampler.global_batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    classifier.train()
    progress = tqdm(range(steps), "training the classifier", unit="step", disable=None)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * _rate(step / steps)
        sample_slice = sampler.step(step)
        index = torch.from_numpy(sample_slice.index).to(images.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = classifier(scaled(augmented(images[index], sample_slice)))
        loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{float(loss.detach()):.2f}")
    return classifier.eval()


def _rate(done: float) -> float:
    """Factor of the learning rate: linear warm-up, then cosine decay. done: fraction of all steps."""
    if done < _WARMUP:
        return (done + 1e-3) / (_WARMUP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))


def augmented(rgb: Tensor, sample_slice: SampleSlice) -> Tensor:
    """Flip and shift images, [B, 3, H, W], by the sampler's random numbers, with reflection padding."""
    device, size = rgb.device, rgb.shape[-1]
    flip = torch.from_numpy(sample_slice.flip).to(device)
    rgb = torch.where(flip[:, None, None, None], rgb.flip(-1), rgb)
    shift = torch.from_numpy((sample_slice.uniforms[:, :2] * (2 * _SHIFT + 1)).astype("int64") - _SHIFT).to(device)
    index = torch.arange(size, device=device) + shift[:, :, None]  # [B, 2, size]: rows, columns
    index = (size - 1) - ((size - 1) - index.abs()).abs()  # reflected at both edges
    rows, columns = index.unbind(1)
    image = torch.arange(len(rgb), device=device)[:, None, None]
    moved: Tensor = rgb.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Accuracy in percent. images: uint8 [N, 3, H, W]; labels: int64 [N], on the same device."""
    right = 0
    for part in in_batches(len(images), 500):
        right += int((classifier(scaled(images[part])).argmax(dim=1) == labels[part]).sum())
    return 100 * right / len(images)
