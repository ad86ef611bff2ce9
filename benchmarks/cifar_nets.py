"""Train the nets that the studies compare on CIFAR-10: VGG-16-BN, a residual net, its plain twin.

The images stay decoded in memory; each step pads by 4 pixels, crops, and flips; SGD with Nesterov
momentum 0.9 and weight decay 5e-4, a learning rate that rises for a fifth of the steps and falls
linearly to zero; bfloat16 where it is native. Leaves a model folder in ``OUT``, and with
``--checkpoints`` one for each epoch in ``OUT/epochs/NN``, for ``plusx study landscape``.

    python benchmarks/cifar_nets.py cifar/ --model vgg16_bn --epochs 8 --out nets/vgg16_bn
    python benchmarks/cifar_nets.py cifar/ --model plain_resnet20_cifar_a --out nets/plain20

``cifar/`` holds ``train/<class>/`` and ``test/<class>/``. Prints a line an epoch and the test
accuracy at the end; on one core VGG-16-BN sees about 140 images a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from torch.nn import functional

from plusx.data import Preprocessing
from plusx.model.baselines import BASELINES, HiddenBlock, VGGSpec
from plusx.runtime import fast_dtype, resolve_device
from plusx.science.subject import Images, Subject, read_images
from plusx.weights import create, save_artifact
from plusx.weights.network import resolve_spec


def spec_for(name: str) -> object:
    """The variant of that name for 10 classes of 32 pixels; a VGG's two hidden layers have 512
    outputs, since the paper's 4,096 would be 120 million weights on a map of one pixel."""
    if name in BASELINES:
        spec = BASELINES[name].replace(classes=10, image_size=32)
        if isinstance(spec, VGGSpec):
            spec = spec.replace(hidden=512, dropout=0.0)
        return dataclasses.replace(spec, name=f"{name}_cifar")
    return resolve_spec(name)


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Padded by 4 pixels, cropped back anywhere, flipped half of the time."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (4, 4, 4, 4))
    tops, lefts = torch.randint(0, 9, (2, n)).tolist()
    views = torch.stack([padded[i, :, t : t + height, left : left + width]
                         for i, (t, left) in enumerate(zip(tops, lefts, strict=True))])  # fmt: skip
    flip = torch.rand(n) < 0.5
    views[flip] = views[flip].flip(-1)
    return views.contiguous(memory_format=torch.channels_last)


def accuracy(model: torch.nn.Module, test: Images, dtype: torch.dtype) -> float:
    """Share of the test images answered rightly."""
    model.eval()
    right = 0
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for at in range(0, len(test), 250):
            logits = model(test.images[at : at + 250])
            right += int((logits.argmax(1) == test.targets[at : at + 250]).sum())
    return right / len(test)


def _group(
    model: torch.nn.Module, name: str, parameter: torch.nn.Parameter, lr: float
) -> dict[str, object]:
    """Weights decay, norms and biases do not. A VGG's first hidden layer sees a map of one pixel
    stretched to 7x7, so that 49 weights move as one: each takes a 49th of the step."""
    module = model.get_submodule(name.rpartition(".")[0].removesuffix(".conv"))
    copies = module.kernel**2 if isinstance(module, HiddenBlock) and name.endswith("weight") else 1
    decay = 5e-4 if parameter.ndim > 1 else 0.0
    return {"params": [parameter], "lr": lr / copies, "weight_decay": decay}


def main() -> None:
    """Train and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="vgg16_bn")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, help="train on so many only")
    parser.add_argument("--checkpoints", action="store_true")
    parser.add_argument("--out", required=True)
    asked = parser.parse_args()

    torch.manual_seed(asked.seed)
    model = create(spec_for(asked.model), weights="none", seed=asked.seed)  # type: ignore[arg-type]
    preprocessing = Preprocessing.for_size(32)
    subject = Subject(asked.model, model, preprocessing, None, "random", None)
    train = read_images(asked.data, subject, split="train", limit=asked.images)
    test = read_images(asked.data, subject, split="test", limit=asked.images)
    classes = sorted(path.name for path in Path(asked.data, "train").iterdir())

    def keep(folder: Path, epoch: int) -> None:
        made = {"recipe": vars(asked), "epoch": epoch, "top1_test": accuracy(model, test, dtype)}
        save_artifact(folder, model, classes=classes, preprocessing=preprocessing,
                      provenance=made, card="")  # fmt: skip
        print(f"{folder}: top-1 {made['top1_test']:.4f} on {len(test)} test images", flush=True)

    dtype = fast_dtype(resolve_device("cpu"))
    groups = [_group(model, name, p, asked.lr) for name, p in model.named_parameters()]
    optimizer = torch.optim.SGD(groups, lr=asked.lr, momentum=0.9, nesterov=True)
    steps = len(train) // asked.batch_size * asked.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.2 * steps), (steps - step) / (0.8 * steps))
    )
    model.to(memory_format=torch.channels_last)
    started = time.perf_counter()
    for epoch in range(1, asked.epochs + 1):
        if asked.checkpoints:
            keep(Path(asked.out, "epochs", f"{epoch - 1:02}"), epoch - 1)
        model.train()
        total, seen = 0.0, 0
        for rows in torch.randperm(len(train)).split(asked.batch_size):
            if len(rows) < asked.batch_size:
                continue
            views = augmented(train.images[rows])
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = functional.cross_entropy(model(views).float(), train.targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total, seen = total + loss.item() * len(rows), seen + len(rows)
        took = time.perf_counter() - started
        print(f"epoch {epoch}: training loss {total / seen:.3f}, {took:.0f} s", flush=True)
    if asked.checkpoints:
        keep(Path(asked.out, "epochs", f"{asked.epochs:02}"), asked.epochs)
    keep(Path(asked.out, "model"), asked.epochs)


if __name__ == "__main__":
    main()
