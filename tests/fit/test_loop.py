from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from plusx.errors import ArtifactError, DataError, Diverged, PlusxError, UsageError
from plusx.evaluate import Predictions
from plusx.fit.checkpoint import load_checkpoint, save_checkpoint
from plusx.fit.choice import Choice
from plusx.fit.criterion import make_criterion
from plusx.fit.history import Epoch, History
from plusx.fit.kept import Keeping
from plusx.fit.loop import Hardware, copy_state, train_network
from plusx.fit.optimizers import make_optimizer
from plusx.fit.recipe import Recipe, default_epochs, default_lr
from plusx.fit.state import Generators
from plusx.fit.stop import Stop

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


# Stopping and going on


class Power(Exception):
    """Fails."""


def cut_at(number: int):  # type: ignore[no-untyped-def]
    """A tick that fails at a step, counted over all epochs."""
    seen = []

    def tick(step: object) -> None:
        seen.append(step)
        if len(seen) == number:
            raise Power

    return tick


def dropping() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("at", [1, 3, 4, 6, 11])
def test_within_an_epoch_too_nothing_but_time_is_lost(tmp_path: Path, at: int) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = dropping(), dropping()
    rows, _ = go(tmp_path / "whole", whole)
    with pytest.raises(Power):
        go(tmp_path / "parts", parts, keeping={"minutes": 0.0, "tick": cut_at(at)})
    torch.rand(7)
    parts = dropping()
    again, _ = go(tmp_path / "parts", parts)
    assert same(whole, parts)
    assert [(r.epoch, r.train_loss, r.val_nll, r.lr) for r in again] == [
        (r.epoch, r.train_loss, r.val_nll, r.lr) for r in rows
    ]


def test_asked_to_stop_it_ends_the_step_and_keeps_it(tmp_path: Path) -> None:
    stop = Stop()

    def ask(step: object) -> None:
        stop.asked = True

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, linear(), keeping={"stop": stop, "tick": ask})
    state = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert state is not None
    assert (state["position"]["epoch"], state["position"]["step"]) == (1, 2)


def test_every_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    generators = Generators()
    file = tmp_path / "generators.pt"
    save_checkpoint(file, generators.state_dict())
    draws = []
    for _ in range(2):
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002
        state = load_checkpoint(file)
        assert state is not None
        generators.load_state_dict(state)
    assert draws[0] == draws[1]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = linear(), linear()
    go(tmp_path / "whole", whole)
    with pytest.raises(Power):
        go(tmp_path / "parts", parts, keeping={"minutes": 0.0, "tick": cut_at(7)})
    last = tmp_path / "parts" / "checkpoints" / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":  # killed between two renames
        last.unlink()
    else:
        last.write_bytes({"cut": content[:-40], "bit": content, "empty": b""}[damage])
    said: list[str] = []
    parts = linear()
    go(tmp_path / "parts", parts, keeping={"note": said.append})
    assert same(whole, parts)
    assert [damage != "gone"] == ["is damaged: going on from" in "".join(said)]


def test_where_all_checkpoints_are_damaged_it_says_so(tmp_path: Path) -> None:
    go(tmp_path, linear())
    for file in (tmp_path / "checkpoints").glob("*.pt"):
        file.write_bytes(b"x")
    with pytest.raises(ArtifactError, match="the checkpoint is damaged; remove it"):
        go(tmp_path, linear())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    go(tmp_path, linear())
    with pytest.raises(ArtifactError, match="the checkpoint's net does not fit"):
        go(tmp_path, nn.Linear(2, 3))


def test_the_best_weights_have_a_file_of_their_own(tmp_path: Path) -> None:
    _, choice = go(tmp_path, linear(), epochs=5)
    best = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert best is not None
    assert (best["epoch"], best["score"]) == (choice.best.epoch, choice.best.score)
    assert all(torch.equal(value, best["net"][name]) for name, value in choice.best.state.items())


def test_values_that_are_not_finite_are_named_as_the_cause(tmp_path: Path) -> None:
    class Holed(Points):
        def shuffled(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
            for (x,), y, rows in super().shuffled(epoch, start):
                yield (x / 0 if epoch == 2 else x,), y, rows

    val = Points(12)
    with pytest.raises(Diverged, match=r"epoch 2, step 1, .*not finite: mend .*last\.pt keeps the"):
        train_network(
            linear(), Holed(16), val, recipe=recipe(), hardware=CPU,
            criterion=make_criterion("single"), choice=Choice(val.validation(), seed=0),
            keeping=Keeping(tmp_path, minutes=0.0),
        )  # fmt: skip
    kept = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert kept is not None
    assert all(bool(value.isfinite().all()) for value in kept["net"].values())


def test_an_exploding_loss_ends_it(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"the loss became .* learning rate is probably too high"):
        go(tmp_path, linear(), optimizer="sgd", lr=1e9)


def test_a_step_without_readable_images_is_passed_over(tmp_path: Path) -> None:
    class Holed(Points):
        def shuffled(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
            for number, ((x,), y, rows) in enumerate(super().shuffled(epoch, start), start=start):
                kept = slice(0, 0 if number == 1 else None)
                yield (x[kept],), y[kept], rows[kept]

    val = Points(12)
    rows = train_network(
        linear(), Holed(16), val, recipe=recipe(), hardware=CPU, keeping=Keeping(tmp_path),
        criterion=make_criterion("single"), choice=Choice(val.validation(), seed=0),
    )  # fmt: skip
    assert all(np.isfinite(row.train_loss) for row in rows[1:])
