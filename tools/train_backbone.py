"""Train the bundled backbone, ``plusx_small``, on EuroSAT tiles of eight classes.

    python tools/train_backbone.py --eurosat EuroSAT/2750

``--eurosat`` is the RGB edition of EuroSAT (Helber et al. 2019, MIT licence): a folder per class,
64x64 JPEG tiles. The classes in ``LEFT_OUT`` are those of the bundled sample and of the transfer
curve; their files are never opened.

A net trained only to name the class of a whole tile keeps little else, and what it drops (how
smooth the smoothest corner is, whether a line runs through) is what a new task may need. So
each tile is crossed by a curved band cut out of another tile, and the features must tell

- which classes are present, and in what share                       (pooled features)
- which class every place belongs to, and where the band lies        (maps; like CutMix with its
  mask as the target: Yun et al. 2019, arXiv 1905.04899)
- a histogram of contrast, colour and brightness at every place      (maps; dense, hand-made
  targets after MaskFeat, Wei et al. 2022, arXiv 2112.09133, and bags of visual words, Gidaris
  et al. 2020, arXiv 2002.12247; the targets are linear in the pooled features by construction)
- the quantiles of the same quantities over the whole image          (pooled features)

The last two need no label. Three fifths of the tiles are turned by quarter turns only, because
any resampling smooths away the finest texture.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from plusx.data import Preprocessing
from plusx.model import ResNet, ResNetSpec, variant
from plusx.weights.load import disk_state

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "SeaLake",
)
LEFT_OUT = ("Highway", "River")
SIZE = 64  # pixels, height and width of a tile
HELD_OUT = 2_000
SPEC = variant("plusx_small").replace(classes=len(CLASSES))
OUT = Path(__file__).parents[1] / "src" / "plusx" / "weights" / "bundled"


# -- tiles ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiles:
    """Decoded tiles; ``hashes`` are the first 16 hex digits of each file's SHA-256."""

    images: Tensor  # (N, 3, 64, 64) uint8
    labels: Tensor  # (N,) int64, position in CLASSES
    names: list[str]  # "Forest/Forest_12.jpg"
    hashes: list[str]

    def __len__(self) -> int:
        return len(self.names)


def read_tiles(folder: Path) -> Tiles:
    """All tiles of ``CLASSES`` below ``folder``, sorted by name."""
    images, labels, names, hashes = [], [], [], []
    for label, name in enumerate(CLASSES):
        files = sorted((folder / name).glob("*.jpg"))
        if not files:
            raise SystemExit(f"--eurosat {folder}: no tiles in {folder / name}")
        for file in files:
            with Image.open(file) as image:
                images.append(np.asarray(image.convert("RGB")))
            labels.append(label)
            names.append(f"{name}/{file.name}")
            hashes.append(hashlib.sha256(file.read_bytes()).hexdigest()[:16])
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Tiles(pixels, torch.tensor(labels), names, hashes)


def split(tiles: Tiles, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the tiles to train on, and of ``HELD_OUT`` to report on."""
    order = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(seed))
    return order[HELD_OUT:], order[:HELD_OUT]


# -- random views, a whole batch at a time ----------------------------------------------------


def between(n: int, low: float, high: float) -> Tensor:
    return torch.rand(n) * (high - low) + low


def log_between(n: int, low: float, high: float) -> Tensor:
    return between(n, math.log(low), math.log(high)).exp()


def dihedral(x: Tensor) -> Tensor:
    """(N, C, H, W) -> each quarter of the batch turned by another multiple of 90 degrees, half of
    it mirrored. Exact: no pixel is resampled."""
    turned = torch.cat([torch.rot90(part, k, (2, 3)) for k, part in enumerate(x.chunk(4))])
    return torch.where((torch.rand(len(x)) < 0.5).view(-1, 1, 1, 1), turned.flip(3), turned)


def warp(x: Tensor) -> Tensor:
    """(N, C, H, W) -> scaled by 0.55 to 1.1, stretched, turned, mirrored, shifted; reflected at
    the border."""
    n = len(x)
    scale, stretch = log_between(n, 0.55, 1.1), between(n, -0.2, 0.2).exp()
    angle = torch.randint(0, 4, (n,)) * (math.pi / 2) + between(n, -0.4, 0.4)
    flip = (torch.rand(n) < 0.5).float() * 2 - 1
    room = (1 - scale).clamp(min=0)
    sx, sy = scale * stretch, scale / stretch
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack([cos * sx * flip, -sin * sy, between(n, -1, 1) * room], 1),
        torch.stack([sin * sx * flip, cos * sy, between(n, -1, 1) * room], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def views(x: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..1, in random order -> three fifths ``dihedral``, the rest ``warp``."""
    exact = int(0.6 * len(x))
    return torch.cat([dihedral(x[:exact]), warp(x[exact:])])


def light(x: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..1 -> slightly other contrast, brightness and tint; 3 in 100 grey.

    Slightly, because contrast and colour are among the things to be told apart.
    """
    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.03, x.mean(1, keepdim=True), x)
    mean = x.mean((2, 3), keepdim=True)
    contrast = (0.04 * torch.randn(n, 1, 1, 1)).exp()
    gain = (0.04 * torch.randn(n, 1, 1, 1) + 0.02 * torch.randn(n, 3, 1, 1)).exp()
    return (((x - mean) * contrast + mean) * gain).clamp(0, 1)


def bands(n: int) -> tuple[Tensor, Tensor]:
    """Masks (n, 1, 64, 64) in 0..1 of curved bands, and their widths (n,), 2 to 28 pixels.

    A band is an arc of a circle of 18 to 600 pixels' radius through a point near the middle; half
    of them meander by up to 3 pixels.
    """
    radius, angle = log_between(n, 18, 600), between(n, 0, 2 * math.pi)
    px, py = between(n, 12, SIZE - 12), between(n, 12, SIZE - 12)
    width = log_between(n, 2, 28)
    bend = 3 * torch.rand(n) * (torch.rand(n) < 0.5)
    phase, wavelength = between(n, 0, 2 * math.pi), between(n, 15, 50)
    cos, sin = angle.cos(), angle.sin()
    cx, cy = px + radius * cos, py + radius * sin
    radius, px, py, cx, cy, cos, sin, bend, phase, wavelength, half = (
        value.view(-1, 1, 1)
        for value in (radius, px, py, cx, cy, cos, sin, bend, phase, wavelength, width / 2)
    )
    line = torch.arange(SIZE) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    away = ((x - cx) ** 2 + (y - cy) ** 2).sqrt() - radius
    along = (y - py) * cos - (x - px) * sin
    away = away + bend * (2 * math.pi * along / wavelength + phase).sin()
    return (half - away.abs() + 0.5).clamp(0, 1)[:, None], width


@dataclass(frozen=True)
class Batch:
    images: Tensor  # (N, 3, 64, 64) in 0..1
    shares: Tensor  # (N, 8, 8, 8): share of each class in each place of 8x8 pixels
    mask: Tensor  # (N, 1, 64, 64): the band
    width: Tensor  # (N,), pixels
    crossed: Tensor  # (N,), 1 where there is a band


def make_batch(images: Tensor, labels: Tensor) -> Batch:
    """uint8 tiles (N, 3, 64, 64) -> 17 in 20 of them crossed by a band of another tile.

    A quarter of the bands have the other tile's mean colour, some brightness and faint noise
    instead of its texture.
    """
    n = len(images)
    x = views(images.float() / 255)
    hot = F.one_hot(labels, len(CLASSES)).float()[:, :, None, None]
    other = torch.randperm(n)
    mask, width = bands(n)
    crossed = (torch.rand(n) < 0.85).float()
    mask = mask * crossed.view(-1, 1, 1, 1)
    filling = x[other]
    flat = filling.mean((2, 3), keepdim=True) * (0.2 * torch.randn(n, 1, 1, 1)).exp()
    flat = flat + 0.01 * torch.randn(n, 1, SIZE, SIZE)
    filling = torch.where(torch.rand(n, 1, 1, 1) < 0.25, flat, filling)
    share = F.avg_pool2d(mask, 8)
    return Batch(
        light(x * (1 - mask) + filling * mask),
        hot * (1 - share) + hot[other] * share,
        mask,
        width,
        crossed,
    )


# -- targets that need no label ---------------------------------------------------------------


def log_contrast(grey: Tensor, side: int, floor: float) -> Tensor:
    """(N, 1, H, W) -> log of the standard deviation in blocks of ``side`` pixels."""
    mean = F.avg_pool2d(grey, side)
    variance = (F.avg_pool2d(grey * grey, side) - mean * mean).clamp(min=0)
    return 0.5 * (variance + floor).log()


def local_values(x: Tensor) -> dict[str, Tensor]:
    """(N, 3, 64, 64) in 0..1 -> maps (N, 1, h, w): contrast at three scales, colour, brightness."""
    grey, colour = x.mean(1, keepdim=True), F.avg_pool2d(x, 4)
    red, green, blue = colour.split(1, 1)
    return {
        "contrast4": log_contrast(grey, 4, 2e-6),
        "contrast2": log_contrast(grey, 2, 2e-6),
        "contrast8": log_contrast(grey, 8, 2e-6),
        "blueness": blue - red,
        "brightness": colour.mean(1, keepdim=True),
        "greenness": green - (red + blue) / 2,
    }


def bin_centres(x: Tensor) -> dict[str, Tensor]:
    """For each local value, the centres of its soft bins: evenly spaced quantiles over ``x``."""
    centres = {}
    for name, values in local_values(x).items():
        count = 7 if name.startswith("contrast") else 5
        levels = np.linspace(0.02, 0.98, count)
        centres[name] = torch.from_numpy(np.quantile(values.numpy(), levels)).float()
    return centres


def soft_bins(values: Tensor, centres: Tensor) -> Tensor:
    """(N, 1, h, w) -> (N, K, h, w): triangular memberships, which sum to 1."""
    values = values.clamp(float(centres[0]), float(centres[-1]))
    gaps = torch.diff(centres)
    below = torch.cat([gaps[:1], gaps]).view(1, -1, 1, 1)
    above = torch.cat([gaps, gaps[-1:]]).view(1, -1, 1, 1)
    off = values - centres.view(1, -1, 1, 1)
    return torch.where(off < 0, 1 + off / below, 1 - off / above).clamp(min=0)


def histograms(x: Tensor, centres: dict[str, Tensor]) -> Tensor:
    """(N, 3, 64, 64) in 0..1 -> (N, 59, 16, 16), the local histograms, times 4.

    Contrast and blueness jointly (7 x 5 bins), brightness, greenness, finer and coarser contrast.
    """
    bins = {name: soft_bins(value, centres[name]) for name, value in local_values(x).items()}
    joint = bins["contrast4"][:, :, None] * bins["blueness"][:, None]
    finer = F.avg_pool2d(bins["contrast2"], 2)
    coarser = F.interpolate(bins["contrast8"], scale_factor=2)
    maps = [joint.flatten(1, 2), bins["brightness"], bins["greenness"], finer, coarser]
    return 4 * torch.cat(maps, 1)


def quantiles(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, 7 C): the 2, 10, 25, 50, 75, 90 and 98% quantiles over the pixels."""
    ordered = maps.flatten(2).sort(2).values
    levels = torch.tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    return ordered[:, :, (levels * (ordered.shape[2] - 1)).round().long()].flatten(1)


def statistics(x: Tensor) -> Tensor:
    """(N, 3, 64, 64) in 0..1 -> (N, 77): quantiles of colour, contrast and line-likeness.

    Line-likeness is the coherence of the structure tensor (Bigun and Granlund 1987).
    """
    grey, colour = x.mean(1, keepdim=True), F.avg_pool2d(x, 4)
    red, green, blue = colour.split(1, 1)
    found = [quantiles(torch.cat([colour, blue - red, blue / (green + 0.02)], 1))]
    found += [quantiles(log_contrast(grey, side, 1e-5)) for side in (2, 4, 8, 16)]
    half = F.avg_pool2d(grey, 2)
    dx = F.pad(half[:, :, :, 2:] - half[:, :, :, :-2], (1, 1))
    dy = F.pad(half[:, :, 2:] - half[:, :, :-2], (0, 0, 1, 1))
    for side in (4, 8):
        tensor = F.avg_pool2d(torch.cat([dx * dx, dy * dy, dx * dy], 1), side, side // 2)
        xx, yy, xy = tensor.split(1, 1)
        anisotropy = ((xx - yy) ** 2 + 4 * xy**2 + 1e-12).sqrt()
        found.append(quantiles(anisotropy / (xx + yy + 3e-4)))
    return torch.cat(found, 1)


# -- training ---------------------------------------------------------------------------------


class Targets:
    """The label-free targets, on the scale of a sample of training tiles."""

    def __init__(self, sample: Tensor) -> None:
        self.centres = bin_centres(sample)
        found = statistics(sample)
        self.mean, self.std = found.mean(0), found.std(0)

    def dense(self, x: Tensor) -> Tensor:
        """(N, 3, 64, 64) in 0..1 -> (N, 59, 16, 16)."""
        return histograms(x, self.centres)

    def whole(self, x: Tensor) -> Tensor:
        """(N, 3, 64, 64) in 0..1 -> (N, 77), standardised and cut off at 4."""
        return ((statistics(x) - self.mean) / self.std).clamp(-4, 4)


class Heads(nn.Module):
    """What is asked of the features in training; thrown away afterwards."""

    def __init__(self, spec: ResNetSpec, classes: int) -> None:
        super().__init__()
        _, fine, middle, last = spec.stage_channels
        self.presence = nn.Linear(last, classes)
        self.width = nn.Linear(last, 1)
        self.place = nn.Conv2d(middle, classes, 1)
        self.band = nn.Conv2d(fine, 1, 1)
        self.fine = nn.Conv2d(fine, 59, 1)
        self.middle = nn.Conv2d(middle, 59, 1)
        self.whole = nn.Linear(spec.feature_channels, 77)


def soft_cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """(N, K, ...) logits against shares of the same shape -> mean over all but K."""
    return -(shares * logits.float().log_softmax(1)).sum(1).mean()


def loss_of(model: ResNet, heads: Heads, batch: Batch, targets: Targets, x: Tensor) -> Tensor:
    """The weighted sum of all objectives; ``x`` is ``batch.images`` normalised."""
    dense, whole = targets.dense(batch.images), targets.whole(batch.images)
    with torch.autocast("cpu", torch.bfloat16):
        _, fine, middle, last = model.pyramid(x).values()
        place, band = heads.place(middle), heads.band(fine).float()
        histogram_fine, histogram_middle = heads.fine(fine).float(), heads.middle(middle).float()
    pooled = model.head.pool([last])
    features = model.head.pool([fine, middle, last])
    shares = batch.shares.mean((2, 3))
    squares = (heads.width(pooled).squeeze(1) - batch.width.log()) ** 2
    cross_entropy = F.binary_cross_entropy_with_logits
    return (
        0.5 * soft_cross_entropy(model.head(features), shares)
        + 8.0 * cross_entropy(heads.presence(pooled), (shares > 0.03).float())
        + 1.0 * soft_cross_entropy(place, batch.shares)
        + 1.0 * cross_entropy(band, F.avg_pool2d(batch.mask, 4))
        + 0.2 * (squares * batch.crossed).mean()
        + 2.0 * F.mse_loss(histogram_fine, dense)
        + 2.0 * F.mse_loss(histogram_middle, F.avg_pool2d(dense, 2))
        + 1.0 * F.mse_loss(heads.whole(features), whole)
    )


def make_optimizer(modules: list[nn.Module], lr: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), decay on matrices and kernels only."""
    parameters = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


def train(tiles: Tiles, chosen: Tensor, options: argparse.Namespace) -> ResNet:
    """A trained network: ``options.images`` views, warm-up over 5%, then a cosine to zero."""
    model = ResNet(SPEC).to(memory_format=torch.channels_last)
    heads = Heads(SPEC, len(CLASSES))
    targets = Targets(tiles.images[chosen[:HELD_OUT]].float() / 255)
    optimizer = make_optimizer([model, heads], options.lr)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    normalise = Preprocessing.for_size(SIZE).normalise
    steps, started = options.images // options.batch_size, time.time()
    for step in range(steps):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1, done / 0.05) * 0.5 * (1 + math.cos(math.pi * done))
        drawn = chosen[torch.randint(0, len(chosen), (options.batch_size,))]
        batch = make_batch(tiles.images[drawn], tiles.labels[drawn])
        x = normalise(batch.images).contiguous(memory_format=torch.channels_last)
        loss = loss_of(model, heads, batch, targets, x)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        if step % 100 == 99:
            seconds = time.time() - started
            print(f"step {step + 1}/{steps}, {seconds:.0f} s, loss {loss.item():.3f}", flush=True)
    return model.eval()


@torch.inference_mode()
def accuracy(model: ResNet, tiles: Tiles, chosen: Tensor) -> float:
    """Top-1 on the chosen tiles, a fraction."""
    normalise = Preprocessing.for_size(SIZE).normalise
    right = 0
    for part in chosen.split(250):
        x = normalise(tiles.images[part].float() / 255).contiguous(
            memory_format=torch.channels_last
        )
        right += int((model(x).argmax(1) == tiles.labels[part]).sum())
    return right / len(chosen)


# -- files ------------------------------------------------------------------------------------


def save(model: ResNet, out: Path) -> ResNet:
    """Write the weights as float16; the model as it will be read back."""
    out.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in disk_state(model).items()
    }
    save_file(state, out / f"{SPEC.name}.safetensors", metadata={"format": "pt"})
    return model.half().float()


def save_hashes(tiles: Tiles, held: Tensor, path: Path) -> None:
    """One line a tile: first 16 hex digits of its file's SHA-256, train or held-out, its name."""
    apart = set(held.tolist())
    lines = [
        f"{tiles.hashes[i]} {'held-out' if i in apart else 'train'} {tiles.names[i]}\n"
        for i in range(len(tiles))
    ]
    path.write_bytes(gzip.compress("".join(lines).encode(), 9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--eurosat", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--images", type=int, default=270_000, help="views to train on")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    tiles = read_tiles(options.eurosat)
    chosen, held = split(tiles, options.seed)
    started, cpu = time.time(), time.process_time()
    model = train(tiles, chosen, options)
    minutes, cpu_minutes = (time.time() - started) / 60, (time.process_time() - cpu) / 60
    model = save(model, options.out)
    save_hashes(tiles, held, options.out / "tiles.sha256.gz")
    record = {
        "spec": SPEC.to_dict(),
        "classes": CLASSES,
        "left_out": LEFT_OUT,
        "train_tiles": len(chosen),
        "held_out_tiles": len(held),
        "held_out_top1": round(accuracy(model, tiles, held), 4),
        "views": options.images,
        "batch_size": options.batch_size,
        "lr": options.lr,
        "seed": options.seed,
        "threads": options.threads,
        "minutes": round(minutes, 1),
        "cpu_minutes": round(cpu_minutes, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    (options.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"{minutes:.1f} minutes, top-1 on held-out tiles {record['held_out_top1']:.4f}")


if __name__ == "__main__":
    main()
