"""Training the effective paths alone.

Veit et al. 2016 (arXiv 1605.06431), section 5.3: at every step draw a path length among the
effective ones, run that many random blocks with their branches and the others as their shortcuts,
and train what was run. Beside it the same net goes on with all its paths, on the same batches, so
that the two differ in nothing else.

Departure from the paper: it starts from a trained net and takes a few steps, where the paper
trains for as long as usual; a length is drawn with its share of the paths among those allowed, and
a block that changes the shape is run like the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from plusx.errors import UsageError
from plusx.model.classifier import Classifier, average
from plusx.science.landscape_plane import moved
from plusx.science.lesion_plans import bypass
from plusx.science.paths import count
from plusx.science.paths_gradient import forks_of
from plusx.science.subject import Images, Subject


@dataclass(frozen=True)
class Training:
    """How to go on training.

    Attributes:
        steps: of SGD with momentum 0.9.
        lr: learning rate, falling linearly to zero.
        batch: images a step.
        seed: of batches and paths.

    Raises:
        UsageError: fewer than one step or image.
    """

    steps: int = 200
    lr: float = 0.01
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise UsageError(f"steps={self.steps} and batch={self.batch} must be at least 1")


@dataclass(frozen=True)
class Trained:
    """Errors on the test images, 0..1.

    Attributes:
        before: of the net as it was.
        effective: after training the effective paths alone.
        everything: after training all paths on the same batches.
    """

    before: float
    effective: float
    everything: float


def train_effective(
    subject: Subject,
    train: Images,
    test: Images,
    *,
    lengths: tuple[int, int],
    how: Training | None = None,
    tick: Callable[[int], None] = lambda n: None,
) -> Trained:
    """Train two copies of a net, the one on its effective paths.

    Args:
        subject: stays as it is. BatchNorm keeps its statistics: with blocks left out they would
            be those of other nets.
        train, test: labelled images.
        lengths: first and last effective length; see ``paths.effective``.
        how: steps and rates.
        tick: called for each step of either copy.

    Raises:
        UsageError: the net has no choice of paths, or no such lengths.
    """
    how = how or Training()
    blocks, (low, high) = len(forks_of(subject.model)), lengths
    if not 0 <= low <= high <= blocks:
        raise UsageError(f"lengths {low} to {high} are not within 0 to {blocks}")
    shares = np.array(count(blocks)[low : high + 1], np.float64)
    random = np.random.default_rng(how.seed)
    drawn = low + random.choice(len(shares), size=how.steps, p=shares / shares.sum())
    kept = [set(random.permutation(blocks)[:k].tolist()) for k in drawn]
    every = [set(range(blocks))] * how.steps
    errors = [_error(_trained(subject.model, train, some, how, tick), test)
              for some in (kept, every)]  # fmt: skip
    return Trained(_error(subject.model, test), *errors)


def run_some(model: Classifier, images: Tensor, kept: set[int]) -> Tensor:
    """Logits with those blocks run and the others as their shortcuts."""
    x = model.stem(images)
    for number, block in enumerate(forks_of(model)):
        x = block(x) if number in kept else bypass(block, x)
    logits: Tensor = model.head(average(model.norm(x)))
    return logits


def _trained(
    model: Classifier,
    train: Images,
    kept: list[set[int]],
    how: Training,
    tick: Callable[[int], None],
) -> Classifier:
    net = moved(model, [], []).eval().requires_grad_(True)
    optimizer = torch.optim.SGD(net.parameters(), lr=how.lr, momentum=0.9)
    random = np.random.default_rng((how.seed, 1))
    for step, some in enumerate(kept):
        rows = torch.from_numpy(random.integers(len(train), size=how.batch))
        for group in optimizer.param_groups:
            group["lr"] = how.lr * (1 - step / how.steps)
        logits = run_some(net, train.images[rows], some)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(logits.float(), train.targets[rows])
        torch.autograd.backward(loss)
        optimizer.step()
        tick(1)
    return net


def _error(model: Classifier, test: Images) -> float:
    with torch.inference_mode():
        parts = [model(few).argmax(1) for few in torch.split(test.images, 125)]
    return float((torch.cat(parts) != test.targets).float().mean())
