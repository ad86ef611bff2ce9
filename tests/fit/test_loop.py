from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from plusx.errors import ArtifactError, DataError, PlusxError, UsageError
from plusx.evaluate import Predictions
from plusx.fit.checkpoint import load_checkpoint, save_checkpoint
from plusx.fit.choice import Choice
from plusx.fit.criterion import make_criterion
from plusx.fit.history import Epoch, History
from plusx.fit.loop import Hardware, Keeping, copy_state, make_optimizer, train_network
from plusx.fit.recipe import Recipe, default_epochs, default_lr

CPU = Hardware(torch.device("cpu"), torch.float32)


def recipe(**changes: object) -> Recipe:
    usual: dict[str, object] = {
        "epochs": 3, "batch_size": 4, "optimizer": "adamw", "lr": 0.05, "weight_decay": 0.01,
        "warmup": 0.1, "label_smoothing": 0.0, "patience": 0, "norm": "train", "clip": 1.0,
        "seed": 0}  # fmt: skip
    return Recipe(**(usual | changes))  # type: ignore[arg-type]


class Points:
    """Points of the plane, told apart by the sign of their first coordinate."""

    def __init__(self, n: int, batch_size: int = 4) -> None:
        random = np.random.default_rng(0)
        self.x = torch.tensor(random.normal(size=(n, 2)), dtype=torch.float32)
        self.y = (self.x[:, 0] > 0).long()
        self.images, self._size = n, batch_size
        self.epochs: list[int] = []

    @property
    def steps(self) -> int:
        return self.images // self._size

    def shuffled(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
        self.epochs.append(epoch)
        order = np.random.default_rng(epoch).permutation(self.images)[start * self._size :]
        for at in range(0, len(order), self._size):
            rows = order[at : at + self._size]
            yield (self.x[rows],), self.y[rows], rows

    def ordered(self):  # type: ignore[no-untyped-def]
        yield (self.x,), self.y, np.arange(self.images)

    def validation(self) -> Predictions:
        return Predictions(
            logits=np.zeros((self.images, 2), np.float32),
            targets=self.y.numpy(),
            paths=tuple(map(str, range(self.images))),
            classes=("left", "right"),
        )


def go(
    folder: Path, net: nn.Module, epochs: int = 3, keeping: dict | None = None, **changes: object
) -> tuple[list, Choice]:
    train, val = Points(16), Points(12)
    choice = Choice(val.validation(), seed=0)
    rows = train_network(
        net, train, val, recipe=recipe(epochs=epochs, **changes), hardware=CPU, choice=choice,
        criterion=make_criterion("single"), keeping=Keeping(folder, **(keeping or {})),
    )  # fmt: skip
    return rows, choice


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def test_the_loop_learns_and_writes_down_every_epoch(tmp_path: Path) -> None:
    rows, choice = go(tmp_path, linear(), epochs=5)
    assert [row.epoch for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[0].train_loss is None
    assert rows[-1].val_nll < rows[0].val_nll
    assert choice.best.epoch > 0
    with (tmp_path / "history.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["val_nll"]) for row in written] == [row.val_nll for row in rows]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_patience_ends_it(tmp_path: Path) -> None:
    rows, choice = go(tmp_path, linear(), epochs=60, patience=3, lr=1e-30)
    assert len(rows) - 1 == 3
    assert choice.last_gain == 0


def test_going_on_from_a_checkpoint_equals_never_having_stopped(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = linear()
    rows, chosen = go(tmp_path / "whole", whole, epochs=6)

    class Enough(Exception):
        pass

    stopped = linear()
    val = Points(12)

    def stop(step) -> None:  # type: ignore[no-untyped-def]
        if step.epoch == 4:
            raise Enough

    with pytest.raises(Enough):
        train_network(
            stopped, Points(16), val, recipe=recipe(epochs=6), hardware=CPU,
            criterion=make_criterion("single"), choice=Choice(val.validation(), seed=0),
            keeping=Keeping(tmp_path / "parts", tick=stop),
        )  # fmt: skip
    resumed = linear()
    again, chosen_again = go(tmp_path / "parts", resumed, epochs=6)
    assert [(r.epoch, r.train_loss, r.val_nll, r.lr) for r in again] == [
        (r.epoch, r.train_loss, r.val_nll, r.lr) for r in rows
    ]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    assert chosen_again.best.epoch == chosen.best.epoch
    assert len(list((tmp_path / "parts" / "tensorboard").glob("events.*"))) == 1


def test_a_checkpoint_of_other_validation_images_is_refused(tmp_path: Path) -> None:
    go(tmp_path, linear())
    val = Points(11)
    with pytest.raises(DataError, match="validation images are not those"):
        train_network(
            linear(), Points(16), val, recipe=recipe(), hardware=CPU,
            criterion=make_criterion("single"), choice=Choice(val.validation(), seed=0),
            keeping=Keeping(tmp_path),
        )  # fmt: skip


def test_a_diverging_loss_is_one_clear_error(tmp_path: Path) -> None:
    net = linear()
    with torch.no_grad():
        net.weight.fill_(1e38)
    with pytest.raises(PlusxError, match="smaller --lr"):
        go(tmp_path, net, lr=1e30)


def test_no_step_touches_what_does_not_require_gradients(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    net[1].requires_grad_(False)
    before = copy_state(net)
    go(tmp_path, net)
    after = net.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"2.weight", "2.bias"}


def test_norm_eval_trains_scale_and_shift_but_keeps_statistics(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = copy_state(net)
    go(tmp_path, net, norm="eval")
    after = net.state_dict()
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert same == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_biases_and_norms_are_not_decayed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    decayed, free = make_optimizer(net, recipe(weight_decay=0.3)).param_groups
    assert decayed["weight_decay"] == 0.3
    assert [p.ndim for p in decayed["params"]] == [2]
    assert free["weight_decay"] == 0.0
    assert sum(len(group["params"]) for group in (decayed, free)) == 4


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_the_rate_rises_then_falls_to_nearly_zero(steps: int) -> None:
    one = recipe(warmup=0.2, lr=0.5)
    rates = [one.lr_at(step, steps) for step in range(steps)]
    top = int(np.argmax(rates))
    assert max(rates) == 0.5
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert all(rate > 0 for rate in rates)
    if steps == 100:
        assert top in (19, 20)
        assert rates[-1] < 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("optimizer", "adam"), ("lr", 0.0), ("lr", float("nan")),
     ("weight_decay", -1.0), ("warmup", 1.0), ("label_smoothing", 1.0), ("patience", -1),
     ("norm", "auto"), ("batch_size", 0)],
)  # fmt: skip
def test_an_impossible_number_names_its_option(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} "):
        recipe(**{name: value})


def test_defaults_fall_with_the_number_of_images() -> None:
    for scratch in (False, True):
        epochs = [default_epochs(n, scratch=scratch) for n in (10, 1_000, 100_000)]
        assert epochs == sorted(epochs, reverse=True)
        assert default_lr("adamw", 128, scratch=scratch) > default_lr("adamw", 32, scratch=scratch)
    assert default_epochs(100, scratch=True) > default_epochs(100, scratch=False)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    assert load_checkpoint(file) is None
    save_checkpoint(file, {"epoch": 3, "score": (0.5, -0.1)})
    assert load_checkpoint(file) == {"epoch": 3, "score": (0.5, -0.1)}
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"last\.pt: the checkpoint is damaged"):
        load_checkpoint(file)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    import resource

    file = tmp_path / "last.pt"
    save_checkpoint(file, {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(ArtifactError, match=r"last\.pt: cannot be written: the disk is prob"):
            save_checkpoint(file, {"epoch": 2, "net": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(file) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_history_writes_rows_at_once_and_repeats_those_before(tmp_path: Path) -> None:
    row = Epoch(0, None, 0.5, 0.7, 0.1, 1.0, None)
    with History(tmp_path) as history:
        history.add(row)
        assert len((tmp_path / "history.csv").read_text().splitlines()) == 2
    with History(tmp_path, [row]) as history:
        history.add(Epoch(1, 0.4, 0.6, 0.6, 0.1, 1.0, 9.0))
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,train_loss,val_top1")
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1"]
