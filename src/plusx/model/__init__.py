"""Residual networks in pure torch: tensors in, tensors out; no files, no images, no network."""

from plusx.model import surgery
from plusx.model.resnet import ResNet
from plusx.model.spec import ResNetSpec
from plusx.model.variants import TIMM_NAMES, VARIANTS, cifar, cifar_preact, variant, wrn

__all__ = [
    "TIMM_NAMES",
    "VARIANTS",
    "ResNet",
    "ResNetSpec",
    "cifar",
    "cifar_preact",
    "surgery",
    "variant",
    "wrn",
]
