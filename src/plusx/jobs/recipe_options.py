"""How a training goes, as asked for: all that a recipe may set; every default stands here."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

from plusx.data.policies import Policy
from plusx.errors import UsageError
from plusx.fit.trackers import check_trackers

Milestones = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """``None`` is resolved from the data and said.

    Attributes:
        recipe: the name of one in the package, whose values stand below all others given.
        config: a TOML file of options, which stand above the recipe's.
        epochs: at most this many.
        iterations: instead, at most this many steps, in whole epochs.
        batch_size: images per step, of all processes together.
        accumulate: parts in which a step's images run; more need less memory.
        optimizer: ``adamw``, ``sgd`` or ``lamb``.
        lr: peak learning rate.
        momentum: of SGD.
        nesterov: of SGD.
        weight_decay: of convolutions and linear layers.
        decay_norms: decay biases and norms as well.
        layer_decay: each block's learning rate over that of the one after it.
        schedule: ``cosine``, ``step``, ``poly`` or ``constant``, after the warm-up.
        warmup: fraction of the steps, or ``5 epochs``, or ``400 steps``.
        milestones: of ``step``: fractions of the training, such as ``0.5,0.75``.
        gamma: of ``step``: factor at each milestone.
        power: of ``poly``.
        clip: largest norm of the gradient; 0 clips nothing.
        ema: decay of the weights' running average, which then is judged and ships; 0 keeps none.
        loss: ``auto`` (by the task), ``softmax``, ``bce`` or ``focal``.
        label_smoothing: by default 0.1 from scratch and 0 after a probe.
        target_threshold: of ``bce``: mixed targets above it become 1, others 0.
        focal: exponent of ``focal``.
        class_weights: ``auto`` (where the largest class has twice the images of the smallest),
            ``balanced`` or ``none``.
        balanced: draw every class equally often.
        mixup: mix pairs of images while fine-tuning, alpha of their shares; 0 mixes nothing.
        cutmix: the same with rectangles cut from images; with both, each step takes one.
        crop: smallest share of the image's area in a training view; by default from the number of
            images.
        pad: instead of that crop, pixels of padding from which a view of full size is taken.
        hflip, vflip: probabilities of flips.
        jitter: of brightness, contrast and saturation, 0 to 1; by default 0.2, and 0 with a
            ``policy`` or ``pad``.
        policy: ``none``, ``randaugment``, ``trivialaugment`` or ``autoaugment``.
        magnitude: of RandAugment, 0 to 10.
        magnitude_spread: standard deviation of it.
        operations: of RandAugment, for each view.
        erase: probability that a rectangle of a view is erased.
        repeats: times that an image of an epoch comes, each time as another view.
        train_size: pixels of training views; by default those that the network sees later.
        first_size: pixels in the first epoch, which grow to ``train_size``.
        drop_path: rate at the last block of stochastic depth.
        gradual: epochs after which one more block learns, from the head on; 0: all at once.
        patience: epochs without gain before stopping; 0 never stops.
        max_time: of training, such as ``10m`` or ``2h``; the schedule ends with it.
        norm: ``auto``, ``train`` or ``eval``: the mode of trainable BatchNorm; ``auto`` keeps its
            statistics behind a frozen trunk and below 16 images a step.
        teacher: a run whose model's answers are learnt from as well as the labels.
        temperature: at which they are compared.
        teacher_share: of that in the loss.
        init: a run to go on from: weights, and of the head the classes that the data still has.
        track: ``wandb``, ``mlflow`` or both with a comma, besides TensorBoard.
    """

    recipe: str | None = None
    config: str | None = None
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float | None = None
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.05
    decay_norms: bool = False
    layer_decay: float = 1.0
    schedule: str = "cosine"
    warmup: float | str = 0.1
    milestones: str | Milestones = (0.5, 0.75)
    gamma: float = 0.1
    power: float = 1.0
    clip: float = 1.0
    ema: float = 0.0
    loss: str = "auto"
    label_smoothing: float | None = None
    target_threshold: float | None = None
    focal: float = 2.0
    class_weights: str = "auto"
    balanced: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    crop: float | None = None
    pad: int = 0
    hflip: float = 0.5
    vflip: float = 0.0
    jitter: float | None = None
    policy: str = "none"
    magnitude: float = 7.0
    magnitude_spread: float = 0.5
    operations: int = 2
    erase: float = 0.0
    repeats: int = 1
    train_size: int | None = None
    first_size: int | None = None
    drop_path: float = 0.0
    gradual: int = 0
    patience: int | None = None
    max_time: str | None = None
    norm: str = "auto"
    teacher: str | None = None
    temperature: float = 2.0
    teacher_share: float = 0.7
    init: str | None = None
    track: str | None = None

    def check_recipe(self) -> None:
        """Complain of values that cannot be.

        Raises:
            UsageError: of another kind or out of range.
            MissingExtra: a tracker is not installed.
        """
        for field in dataclasses.fields(RecipeOptions):
            _check_kind(field.name, str(field.type), getattr(self, field.name))
        least = {"epochs": 1, "iterations": 1, "batch_size": 1, "accumulate": 1, "patience": 0,
                 "gradual": 0, "repeats": 1, "train_size": 8, "first_size": 8}  # fmt: skip
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UsageError(f"{_flag(name)} {value} must be at least {bound}")
            if (value is not None and value > 10**9) or (name == "epochs" and (value or 0) > 10**6):
                raise UsageError(f"{_flag(name)} {value} must be at most {10**6}")
        for name, known in (("norm", ("auto", "train", "eval")),
                            ("class_weights", ("auto", "balanced", "none"))):  # fmt: skip
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise UsageError(f"{_flag(name)} {given!r} is not one of {', '.join(known)}")
        if self.epochs is not None and self.iterations is not None:
            raise UsageError(
                f"--epochs {self.epochs} and --iterations {self.iterations} both say how long; "
                "leave one of them out"
            )
        for name in ("crop", "jitter", "hflip", "vflip", "erase"):
            value = getattr(self, name)
            if value is not None and not (0 <= value <= 1 and (value or name != "crop")):
                raise UsageError(f"{_flag(name)} {value!r} must be in 0..1")
        _ = self.steps_at, self.max_seconds, self.made_policy  # which complain
        check_trackers(self.track)

    @property
    def steps_at(self) -> Milestones:
        """``milestones`` as numbers."""
        if not isinstance(self.milestones, str):
            return tuple(float(value) for value in self.milestones)
        try:
            return tuple(float(part) for part in self.milestones.split(","))
        except ValueError:
            raise UsageError(
                f"--milestones {self.milestones!r} must be fractions such as 0.5,0.75"
            ) from None

    @property
    def max_seconds(self) -> float:
        """``max_time`` in seconds; 0 for none."""
        if self.max_time is None:
            return 0.0
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", self.max_time.strip())
        seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
        if not seconds:
            raise UsageError(f"--max-time {self.max_time!r} must be such as 90s, 10m or 1.5h")
        return seconds

    @property
    def made_policy(self) -> Policy:
        """``policy`` with its numbers."""
        return Policy(
            self.policy,  # type: ignore[arg-type]
            magnitude=self.magnitude,
            spread=self.magnitude_spread,
            operations=self.operations,
        )

    @property
    def heavy(self) -> str:
        """The option, if any, that asks for views that no cache can hold."""
        for name in ("pad", "erase", "cutmix", "train_size", "first_size", "teacher"):
            if getattr(self, name):
                return _flag(name)
        if self.policy != "none":
            return "--policy"
        return "--repeats" if self.repeats > 1 else ""


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_kind(name: str, kinds: str, value: object) -> None:
    """Hold a value against an annotation such as ``float | None``."""
    allowed = kinds.split(" | ")
    words = {"int": "a whole number", "float": "a number", "bool": "true or false",
             "str": "text"}  # fmt: skip
    if value is None and "None" in allowed:
        return
    fine = (
        (type(value) is bool and "bool" in allowed)
        or (type(value) is int and ("int" in allowed or "float" in allowed))
        or (isinstance(value, float) and "float" in allowed and math.isfinite(value))
        or (isinstance(value, str) and "str" in allowed)
        or (isinstance(value, tuple | list) and "Milestones" in allowed)
    )
    if not fine:
        wanted = " or ".join(words[kind] for kind in allowed if kind in words)
        raise UsageError(f"{_flag(name)} {value!r} must be {wanted}")
