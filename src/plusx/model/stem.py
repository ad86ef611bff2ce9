"""The entry of the network: one or three convolutions, norm, activation and, if wanted, a pool."""

from __future__ import annotations

from torch import Tensor, nn

from plusx.errors import SpecError
from plusx.model.blur import BlurPool
from plusx.model.norm import make_norm
from plusx.model.spec import ResNetSpec


class DeepStart(nn.Module):
    """The first two of three 3x3 convolutions, each with norm and activation.

    ResNet-C's and -D's (He, Tong et al. 2018, arXiv 1812.01187, figure 2).
    """

    folds = (("conv1", "norm1"), ("conv2", "norm2"))

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        width, stride = spec.stem_width // 2, spec.stem_stride
        self.conv1 = nn.Conv2d(spec.in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm(spec, width)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = make_norm(spec, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, stem_width / 2, H / stride, W / stride)."""
        x = self.act(self.norm1(self.conv1(x)))
        x = self.act(self.norm2(self.conv2(x)))
        return x


class Stem(nn.Module):
    """Convolution, norm, pool and activation: 7x7 for photographs, 3x3 for small images, or deep.

    In order ``pre`` norm and activation are left out: the first block begins with them.
    """

    folds = (("conv", "norm"),)

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        deep, post = spec.stem == "deep", spec.order == "post"
        self.start = DeepStart(spec) if deep else nn.Identity()
        kernel = 7 if spec.stem == "7x7" else 3
        self.conv = nn.Conv2d(
            spec.stem_width // 2 if deep else spec.in_channels,
            spec.stem_width,
            kernel,
            stride=1 if deep else spec.stem_stride,
            padding=kernel // 2,
            bias=spec.conv_bias,
        )
        self.norm = make_norm(spec, spec.stem_width) if post else nn.Identity()
        self.act = nn.ReLU(inplace=True) if post else nn.Identity()
        self.pool: nn.Module = {
            "max": nn.MaxPool2d(3, stride=2, padding=1),
            "max-ceil": nn.MaxPool2d(3, stride=2, ceil_mode=True),
            "max-zero": nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, stride=2)),
            "max-blur": nn.MaxPool2d(3, stride=1, padding=1),
            "none": nn.Identity(),
        }[spec.stem_pool]
        self.blur = BlurPool(spec.stem_width) if spec.stem_pool == "max-blur" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, stem_width, H', W')."""
        # Pooled before the activation: max and ReLU commute, and a quarter of the pixels is left.
        out: Tensor = self.blur(self.act(self.pool(self.norm(self.conv(self.start(x))))))
        return out


def stem_size(spec: ResNetSpec) -> int:
    """Height (and width) of the stem's output for an image of ``spec.image_size`` pixels.

    Raises:
        SpecError: the image is too small for the stem's blur.
    """
    size = -(-spec.image_size // spec.stem_stride)
    if spec.stem_pool == "max-ceil":  # no padding, and the last window may hang over the edge
        return max(1, -(-(size - 3) // 2) + 1)
    if spec.stem_pool == "max-blur" and size < 2:
        raise SpecError(
            f"image_size={spec.image_size} leaves the stem's blur a single pixel; it needs 2"
        )
    return size if spec.stem_pool == "none" else -(-size // 2)
