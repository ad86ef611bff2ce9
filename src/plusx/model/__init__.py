"""Residual networks in pure torch: tensors in, tensors out; no files, no images, no network."""

from plusx.model.resnet import ResNet
from plusx.model.spec import ResNetSpec
from plusx.model.variants import VARIANTS, cifar, variant

__all__ = ["VARIANTS", "ResNet", "ResNetSpec", "cifar", "variant"]
