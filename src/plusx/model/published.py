"""What was published of each variant: one plain table, name -> ``Published``.

Figures stand as their source writes them, so that their rounding is known. They come from:
torchvision's weights (``num_params``, ``_ops``, ``acc@1`` in ``torchvision/models/resnet.py`` and
``vgg.py``), timm's tables (``results/results-imagenet.csv``, ``results/benchmark-infer-amp-*``;
huggingface/pytorch-image-models at aa4b585), keras.io's table of applications, and the papers.
``top1`` is that of the weights which ``--weights auto`` takes where it takes any, else of the best
ones that the source gives under a free licence; ``top1_of`` names weights, data and image size. An
unknown figure is None: nothing here is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

_TORCHVISION = "https://docs.pytorch.org/vision/stable/models.html"
_TIMM = "https://github.com/huggingface/pytorch-image-models/tree/main/results"
_KERAS = "https://keras.io/api/applications/"

RESNET = "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv 1512.03385"
_PREACT = "He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027"
_WIDE = "Zagoruyko and Komodakis 2016, Wide Residual Networks, arXiv 1605.07146"
_NEXT = (
    "Xie et al. 2016, Aggregated Residual Transformations for Deep Neural Networks, "
    "arXiv 1611.05431"
)
_SE = "Hu et al. 2017, Squeeze-and-Excitation Networks, arXiv 1709.01507"
_TRICKS = (
    "He et al. 2018, Bag of Tricks for Image Classification with Convolutional Neural "
    "Networks, arXiv 1812.01187"
)
_GN = "Wu and He 2018, Group Normalization, arXiv 1803.08494"
_BLUR = "Zhang 2019, Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486"
_ECA = (
    "Wang et al. 2019, ECA-Net: Efficient Channel Attention for Deep Convolutional Neural "
    "Networks, arXiv 1910.03151"
)
_BOT = "Srinivas et al. 2021, Bottleneck Transformers for Visual Recognition, arXiv 2101.11605"
_VGG = (
    "Simonyan and Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image "
    "Recognition, arXiv 1409.1556"
)


@dataclass(frozen=True)
class Published:
    """What its source says of a variant.

    Attributes:
        paper: authors, year, title, arXiv number; empty for a network of plusx's own.
        differs: in one line, from ``resnet50`` or its nearest kin.
        source: URL of the figures; empty where there are none.
        params: parameters as written there (``25,557,032``, ``1.7 M``).
        macs: multiply-adds for one image at its usual size, as written there.
        macs_with_norms: whether that count has norms and pools in it as well, as timm's does; it
            is then up to 2% above that of convolutions and linear layers alone.
        with_statistics: whether ``params`` counts the running means and variances of BatchNorm as
            well, as Keras does.
        top1: top-1 accuracy, a fraction.
        top1_of: which weights, measured on what.
    """

    paper: str
    differs: str
    source: str
    params: str | None = None
    macs: str | None = None
    top1: float | None = None
    top1_of: str = ""
    macs_with_norms: bool = False
    with_statistics: bool = False

    @property
    def year(self) -> int | None:
        """Of the paper."""
        return next((int(word.strip(",")) for word in self.paper.split() if word[:2] == "20"), None)

    @property
    def percent(self) -> str:
        """``top1`` for a person, ``80.38%``; empty where it is unknown."""
        if self.top1 is None:
            return ""
        return f"{100 * self.top1:.2f}".rstrip("0").rstrip(".") + "%"


def amount(text: str) -> tuple[float, float]:
    """A number as written, and one unit of its last digit.

    >>> amount("4.09 G"), amount("25,557,032")
    ((4090000000.0, 10000000.0), (25557032.0, 1.0))

    Raises:
        ValueError: the text is no number with an optional K, M or G behind it.
    """
    digits = text.replace(",", "").strip().upper()
    scale = {"K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}.get(digits[-1:], 1.0)
    digits = digits.rstrip("KMGB").strip()
    decimals = len(digits.partition(".")[2])
    return round(float(digits) * scale, 3), scale / 10**decimals


def _vision(
    paper: str, differs: str, params: str, macs: str, top1: float, of: str = "torchvision V1, 224"
) -> Published:
    return Published(paper, differs, _TORCHVISION, params, macs, top1, f"ImageNet-1k, {of}")


def _timm(
    paper: str, differs: str, params: str, macs: str | None, top1: float | None, of: str = ""
) -> Published:
    said = f"ImageNet-1k, timm {of}" if of else ""
    return Published(paper, differs, _TIMM, params, macs, top1, said, macs_with_norms=True)


def _keras(differs: str, params: str, top1: float) -> Published:
    of = "ImageNet-1k, Keras, 224"
    return Published(_PREACT, differs, _KERAS, params, None, top1, of, with_statistics=True)


def _cifar(
    paper: str, differs: str, params: str, error: float | None, source: str = ""
) -> Published:
    """The papers state the error in percent."""
    top1 = None if error is None else round(1 - error / 100, 4)
    url = source or f"https://arxiv.org/abs/{paper.rpartition(' ')[2]}"
    return Published(paper, differs, url, params, None, top1, "CIFAR-10, the paper's training")


_V1 = "as {}, but the first 1x1 convolution strides: the paper's own layout"
_D = "{} with a deep stem of three 3x3 and an average pool before the 1x1 shortcut (ResNet-D)"
_A = "CIFAR net of {} blocks: 3x3 stem, three stages of 16, 32, 64 channels, shortcut option A"
_P = "CIFAR net with pre-activation: norm and activation before each convolution; {}"
_V2 = "pre-activation ResNet-{}: norm and activation before each convolution, a norm at the end"
_K2 = "pre-activation ResNet-{} as Keras has it: biases, and each stage strides in its last block"
_RES_URL = "https://github.com/KaimingHe/deep-residual-networks"
_WRN_URL = "https://github.com/szagoruyko/wide-residual-networks"

PUBLISHED: dict[str, Published] = {
    "resnet18": _vision(RESNET, "two 3x3 convolutions a block instead of a bottleneck, 8 blocks",
                        "11,689,512", "1.814 G", 0.71504, "timm a1_in1k, 224"),
    "resnet34": _vision(RESNET, "two 3x3 convolutions a block instead of a bottleneck, 16 blocks",
                        "21,797,672", "3.664 G", 0.77492, "timm ra4_e3600_r224_in1k, 224"),
    "resnet50": _vision(RESNET, "16 bottleneck blocks; the 3x3 convolution strides (v1.5)",
                        "25,557,032", "4.089 G", 0.80382, "timm a1_in1k, 224"),
    "resnet101": _vision(RESNET, "resnet50 with 33 blocks", "44,549,160", "7.801 G", 0.81950,
                         "timm a1h_in1k, 224"),
    "resnet152": _vision(RESNET, "resnet50 with 50 blocks", "60,192,808", "11.514 G", 0.82818,
                         "timm a1h_in1k, 224"),
    "resnet50_v1": Published(RESNET, _V1.format("resnet50"), _RES_URL, None, "3.8 G",
                             0.753, "ImageNet-1k, the authors' Caffe weights, 224"),
    "resnet101_v1": Published(RESNET, _V1.format("resnet101"), _RES_URL, None, "7.6 G",
                              0.764, "ImageNet-1k, the authors' Caffe weights, 224"),
    "resnet152_v1": Published(RESNET, _V1.format("resnet152"), _RES_URL, None, "11.3 G",
                              0.770, "ImageNet-1k, the authors' Caffe weights, 224"),
    "resnet18d": _timm(_TRICKS, _D.format("resnet18"), "11.71 M", "2.06 G", 0.74356,
                       "ra4_e3600_r224_in1k, 224"),
    "resnet34d": _timm(_TRICKS, _D.format("resnet34"), "21.82 M", "3.91 G", 0.77108,
                       "ra2_in1k, 224"),
    "resnet50d": _timm(_TRICKS, _D.format("resnet50"), "25.58 M", "4.35 G", 0.80956,
                       "ra4_e3600_r224_in1k, 224"),
    "resnet101d": _timm(_TRICKS, _D.format("resnet101"), "44.57 M", "8.08 G", 0.82254,
                        "ra2_in1k, 256"),
    "resnet152d": _timm(_TRICKS, _D.format("resnet152"), "60.21 M", "11.8 G", 0.83160,
                        "ra2_in1k, 256"),
    "resnet50c": _timm(_TRICKS, "resnet50 with a deep stem of three 3x3 (ResNet-C)",
                       "25.58 M", "4.35 G", 0.78016, "gluon_in1k, 224"),
    "resnext50_32x4d": _vision(_NEXT, "resnet50 with 32 groups of 4 channels in the 3x3",
                               "25,028,904", "4.23 G", 0.81140, "timm a1h_in1k, 224"),
    "resnext101_32x8d": _vision(_NEXT, "resnet101 with 32 groups of 8 channels in the 3x3",
                                "88,791,336", "16.414 G", 0.81990, "timm tv2_in1k, 176"),
    "resnext101_64x4d": _vision(_NEXT, "resnet101 with 64 groups of 4 channels in the 3x3",
                                "83,455,272", "15.46 G", 0.82978, "timm tv_in1k, 224"),
    "wide_resnet50_2": _vision(_WIDE, "resnet50 with twice the channels in the 3x3",
                               "68,883,240", "11.398 G", 0.81466, "timm racm_in1k, 224"),
    "wide_resnet101_2": _vision(_WIDE, "resnet101 with twice the channels in the 3x3",
                                "126,886,696", "22.753 G", 0.80494, "timm tv2_in1k, 176"),
    "seresnet50": _timm(_SE, "resnet50 whose branches end in squeeze-and-excitation",
                        "28.09 M", "4.11 G", 0.80260, "ra2_in1k, 224"),
    "seresnet101": _timm(_SE, "resnet101 whose branches end in squeeze-and-excitation",
                         "49.33 M", "7.84 G", None),
    "seresnet152": _timm(_SE, "resnet152 whose branches end in squeeze-and-excitation",
                         "66.82 M", "11.57 G", None),
    "seresnext50_32x4d": _timm(_SE, "resnext50_32x4d whose branches end in squeeze-and-excitation",
                               "27.56 M", "4.26 G", 0.81268, "racm_in1k, 224"),
    "resnet50_gn": _timm(_GN, "resnet50 with group norm: no batch statistics", "25.56 M", "4.14 G",
                         0.80074, "a1h_in1k, 224"),
    "resnetblur50": _timm(_BLUR, "resnet50 that blurs before it strides: anti-aliased",
                          "25.56 M", "5.16 G", 0.79306, "bt_in1k, 224"),
    "ecaresnet50d": _timm(_ECA, "resnet50d whose branches end in efficient channel attention",
                          "25.58 M", "4.35 G", 0.80634, "miil_in1k, 224"),
    "resnetv2_50": _timm(_PREACT, _V2.format(50), "25.55 M", "4.11 G", 0.80410, "a1h_in1k, 224"),
    "resnetv2_101": _timm(_PREACT, _V2.format(101), "44.54 M", "7.83 G", 0.82042, "a1h_in1k, 224"),
    "resnetv2_152": _timm(_PREACT, _V2.format(152), "60.19 M", "11.55 G", None),
    "resnet50v2_keras": _keras(_K2.format(50), "25,613,800", 0.760),
    "resnet101v2_keras": _keras(_K2.format(101), "44,675,560", 0.772),
    "resnet152v2_keras": _keras(_K2.format(152), "60,380,648", 0.780),
    "botnet50": Published(_BOT, "resnet50 with global self-attention for the 3x3 in the last stage",
                          "https://arxiv.org/abs/2101.11605"),
    "resnet20_cifar_a": _cifar(RESNET, _A.format(9), "0.27 M", 8.75),
    "resnet32_cifar_a": _cifar(RESNET, _A.format(15), "0.46 M", 7.51),
    "resnet44_cifar_a": _cifar(RESNET, _A.format(21), "0.66 M", 7.17),
    "resnet56_cifar_a": _cifar(RESNET, _A.format(27), "0.85 M", 6.97),
    "resnet110_cifar_a": _cifar(RESNET, _A.format(54), "1.7 M", 6.43),
    "resnet1202_cifar_a": _cifar(RESNET, _A.format(600), "19.4 M", 7.93),
    "resnet110_cifar_preact": _cifar(_PREACT, _P.format("54 blocks of two 3x3"), "1.7 M", 6.37),
    "resnet164_cifar_preact": _cifar(_PREACT, _P.format("54 bottlenecks"), "1.7 M", 5.46, _WRN_URL),
    "resnet1001_cifar_preact": _cifar(_PREACT, _P.format("333 bottlenecks"), "10 M", 4.92,
                                      _WRN_URL),
    "wrn28_10": _cifar(_WIDE, _P.format("12 blocks of two 3x3, ten times the channels"), "36.5 M",
                       4.00, _WRN_URL),
    "plusx_small": Published("", "small, for images of 64 pixels; pools its last three stages",
                             ""),
    "vgg11": _vision(_VGG, "no shortcuts: 8 convolutions, max pools, 3 linear layers",
                     "132,863,336", "7.609 G", 0.69020),
    "vgg11_bn": _vision(_VGG, "vgg11 with BatchNorm", "132,868,840", "7.609 G", 0.70370,
                        "torchvision V1, 224"),
    "vgg13": _vision(_VGG, "no shortcuts: 10 convolutions, max pools, 3 linear layers",
                     "133,047,848", "11.308 G", 0.69928),
    "vgg13_bn": _vision(_VGG, "vgg13 with BatchNorm", "133,053,736", "11.308 G", 0.71586,
                        "torchvision V1, 224"),
    "vgg16": _vision(_VGG, "no shortcuts: 13 convolutions, max pools, 3 linear layers",
                     "138,357,544", "15.47 G", 0.71592),
    "vgg16_bn": _vision(_VGG, "vgg16 with BatchNorm", "138,365,992", "15.47 G", 0.73360,
                        "torchvision V1, 224"),
    "vgg19": _vision(_VGG, "no shortcuts: 16 convolutions, max pools, 3 linear layers",
                     "143,667,240", "19.632 G", 0.72376),
    "vgg19_bn": _vision(_VGG, "vgg19 with BatchNorm", "143,678,248", "19.632 G", 0.74218,
                        "torchvision V1, 224"),
    "cnn": Published("", "a simple network of convolutions, without shortcuts: the baseline",
                     ""),
}  # fmt: skip
"""Every variant that plusx names."""
