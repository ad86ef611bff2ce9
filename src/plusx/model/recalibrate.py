"""BatchNorm statistics as a true average over given images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from plusx.errors import UsageError
from plusx.model.classifier import Classifier


@torch.no_grad()
def recalibrate_batchnorm(
    model: Classifier, batches: Iterable[Tensor], *, within: Sequence[nn.Module] | None = None
) -> int:
    """Set every BatchNorm's statistics to the mean and variance over all images of ``batches``.

    While training, running statistics are a moving average that lags behind the weights. He et
    al. replaced it by a true average after training
    (https://github.com/KaimingHe/deep-residual-networks, note 3); so does this. Every value counts
    once: the variance is that of all batches together, not the mean of the batches' variances. As
    in training, each norm passes on what its own batch's statistics make of it, so take batches as
    large as those of the training. Weights, and what else the model holds, stay as they are.

    Args:
        model: changed in place; in the mode it was in before.
        batches: preprocessed images, each (N, C, H, W), on the model's device. A few thousand
            images do.
        within: parts of the model; norms elsewhere keep their statistics. By default all of it.

    Returns:
        The number of images.

    Raises:
        UsageError: no images, or no BatchNorm there.
    """
    parts = [model] if within is None else within
    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        raise UsageError(f"{model.spec.name} has no BatchNorm to recalibrate")
    seen = [_Sums(norm) for norm in norms]
    modes = {module: module.training for module in model.modules()}
    images = 0
    try:
        model.eval()
        for norm, sums in zip(norms, seen, strict=True):
            norm.train()
            sums.watch(norm)
        for batch in batches:
            model(batch)
            images += batch.shape[0]
    finally:
        for norm, sums in zip(norms, seen, strict=True):
            sums.unwatch(norm)
        for module, mode in modes.items():
            module.training = mode
    if images == 0:
        raise UsageError("no images to recalibrate BatchNorm on")
    for sums in seen:
        sums.store()
    return images


class _Sums:
    """Of one norm's input, per channel, over all batches, in float64; and the norm's own buffers.

    A norm's input is nowhere else to be seen, hence the hook, for as long as it takes.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        zeros = torch.zeros(norm.num_features, dtype=torch.float64)
        self.count, self.total, self.squares = 0, zeros, zeros.clone()
        self.mean, self.var, self.batches = (
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
        )

    def watch(self, norm: nn.BatchNorm2d) -> None:
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        self.handle = norm.register_forward_pre_hook(lambda _, inputs: self.add(inputs[0]))

    def unwatch(self, norm: nn.BatchNorm2d) -> None:
        self.handle.remove()
        norm.running_mean, norm.running_var = self.mean, self.var
        norm.num_batches_tracked = self.batches

    def add(self, x: Tensor) -> None:
        """Count (N, C, H, W) in."""
        # A batch's own figures in float32, where it is; their sums in float64, on the CPU.
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        mean, count = mean.cpu().double(), x.numel() // x.shape[1]
        self.count += count
        self.total += count * mean
        self.squares += count * (variance.cpu().double() + mean.square())

    def store(self) -> None:
        """Write what was seen into the norm's buffers."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        if self.mean is not None and self.var is not None:
            self.mean.copy_(mean)
            self.var.copy_(variance * self.count / max(1, self.count - 1))
