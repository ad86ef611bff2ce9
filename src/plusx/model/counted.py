"""Parameters, and multiply-adds for one image of the usual size, of each variant.

So that ``plusx models`` need not build a hundred networks. Written by tools/count_variants.py; a
test counts again. A variant that is not here is counted when it is listed.
"""

from __future__ import annotations

COUNTED: dict[str, tuple[int, int]] = {
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet50_v1": (25_557_032, 3_857_973_248),
    "resnet101_v1": (44_549_160, 7_570_194_432),
    "resnet152_v1": (60_192_808, 11_282_415_616),
    "resnet20_cifar_a": (269_722, 40_551_040),
    "resnet32_cifar_a": (464_154, 68_862_592),
    "resnet44_cifar_a": (658_586, 97_174_144),
    "resnet56_cifar_a": (853_018, 125_485_696),
    "resnet110_cifar_a": (1_727_962, 252_887_680),
    "resnet1202_cifar_a": (19_421_274, 2_829_238_912),
    "plusx_small": (1_525_416, 82_677_248),
}
