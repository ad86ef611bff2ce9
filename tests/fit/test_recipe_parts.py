"""The parts of recipes, each against its source."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import plusx
from plusx.errors import UsageError
from plusx.fit.criterion import check_loss, recipe_criterion, weight_of
from plusx.fit.depth import by_distance, thaw
from plusx.fit.ema import Average
from plusx.fit.inputs import Feed
from plusx.fit.lamb import Lamb
from plusx.fit.loop import Hardware, backward
from plusx.fit.mix import Mixed, cutmix
from plusx.fit.optimizers import make_optimizer, set_lr
from plusx.fit.range_test import LEAST, MOST, range_test
from plusx.fit.recipe import Recipe
from plusx.fit.sampling import Sampling, times_before
from plusx.fit.schedule import Schedule, warmup_fraction
from plusx.model.surgery import blocks, set_drop_path, training_mode
from plusx.runtime import World

CPU = Hardware(torch.device("cpu"), torch.float32)


def recipe(**changes: Any) -> Recipe:
    usual = {"epochs": 3, "batch_size": 8, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.01,
             "warmup": 0.0, "label_smoothing": 0.0, "patience": 0, "norm": "eval", "clip": 1.0,
             "seed": 0}  # fmt: skip
    return Recipe(**(usual | changes))


def small(classes: int = 3) -> nn.Module:
    return plusx.create("resnet8_cifar_a", weights="none", classes=classes)


def test_lamb_is_its_algorithm_by_hand() -> None:
    w, b = np.array([[3.0, 4.0]]), np.array([0.5])
    net = nn.Linear(2, 1).double()
    net.weight.data, net.bias.data = torch.tensor(w), torch.tensor(b)
    groups = [{"params": [net.weight], "weight_decay": 0.1},
              {"params": [net.bias], "weight_decay": 0.0}]  # fmt: skip
    optimizer = Lamb(groups, lr=0.01)
    gradients = [
        (np.array([[1.0, -2.0]]), np.array([3.0])),
        (np.array([[0.5, 0.5]]), np.array([1.0])),
    ]
    state = {"w": [0.0, 0.0], "b": [0.0, 0.0]}
    for count, (gw, gb) in enumerate(gradients, start=1):
        net.weight.grad, net.bias.grad = torch.tensor(gw), torch.tensor(gb)
        optimizer.step()
        for key, g in (("w", gw), ("b", gb)):
            state[key][0] = 0.9 * state[key][0] + 0.1 * g
            state[key][1] = 0.999 * state[key][1] + 0.001 * g * g
            first = state[key][0] / (1 - 0.9**count)
            update = first / (np.sqrt(state[key][1] / (1 - 0.999**count)) + 1e-6)
            if key == "w":
                update = update + 0.1 * w
                w = w - 0.01 * np.linalg.norm(w) / np.linalg.norm(update) * update
            else:
                b = b - 0.01 * update
    np.testing.assert_allclose(net.weight.detach().numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(net.bias.detach().numpy(), b, rtol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "peer"),
    [
        (Schedule("step", 0.0, (0.5, 0.75), 0.1),
         lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 30], 0.1)),
        (Schedule("poly", 0.0, power=2.0),
         lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 40, 2.0)),
        (Schedule("cosine", 0.0), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40)),
        (Schedule("constant", 0.0), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
)  # fmt: skip
def test_schedules_are_those_of_torch(schedule: Schedule, peer: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = peer(optimizer)
    for step in range(40):
        assert schedule.factor(step, 40) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_warm_up_rises_to_the_peak_and_is_told_in_epochs_or_steps() -> None:
    factors = [Schedule("step", 0.1, (0.5,), 0.1).factor(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[49:51] == pytest.approx([1.0, 0.1])
    assert warmup_fraction("5 epochs", epochs=50, steps=7) == 0.1
    assert warmup_fraction("400 steps", epochs=10, steps=400) == 0.1
    assert warmup_fraction(0.2, epochs=1, steps=1) == 0.2
    for text in ("5 weeks", "soon", "5epochs"):
        with pytest.raises(UsageError, match="5 epochs"):
            warmup_fraction(text, epochs=1, steps=1)
    for wrong in ({"milestones": (0.7, 0.5)}, {"gamma": 0.0}, {"warmup": 1.0}, {"name": "linear"}):
        with pytest.raises(UsageError, match="must be"):
            Schedule(**wrong)


def test_he_s_sgd_has_no_nesterov_and_decays_all() -> None:
    net = small()
    optimizer = make_optimizer(net, recipe(nesterov=False, decay_norms=True))
    assert isinstance(optimizer, torch.optim.SGD)
    (all_of_it, none) = optimizer.param_groups
    assert not all_of_it["nesterov"]
    assert all_of_it["weight_decay"] == 0.01
    assert len(all_of_it["params"]) == len(list(net.parameters()))
    assert none["params"] == []


def test_blocks_far_from_the_head_learn_slower() -> None:
    net = small()
    optimizer = make_optimizer(net, recipe(layer_decay=0.5))
    set_lr(optimizer, 0.8)
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    found = blocks(net)
    expected = [(net.head, 0.8), (found[-1], 0.4), (found[-2], 0.2), (net.stem, 0.8 * 0.5**4)]
    assert len(found) == 3
    for module, wanted in expected:
        assert [rate[id(p)] for p in module.parameters()] == pytest.approx(
            [wanted] * len(list(module.parameters()))
        )
    assert set(rate) == {id(p) for p in net.parameters()}


def test_blocks_thaw_from_the_head_on() -> None:
    net = small()
    layers = by_distance(net)
    thaw(layers, 2)
    found = blocks(net)
    trainable = [all(p.requires_grad for p in part.parameters())
                 for part in (net.head, found[2], found[1], net.stem)]  # fmt: skip
    assert trainable == [True, True, False, False]
    thaw(layers, 99)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 5.0, 2.0])])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_step_in_parts_is_the_step_in_one(weights: torch.Tensor | None, parts: int) -> None:
    torch.manual_seed(0)
    images, targets = torch.randn(8, 3, 16, 16), torch.arange(8) % 3
    criterion = recipe_criterion(recipe(), "single", class_weights=weights)
    found = []
    for count in (1, parts):
        net = small()
        training_mode(net, norm_statistics=False)
        loss = backward(net, ((images,), targets), criterion=criterion, parts=count,
                        whole=weight_of(criterion, targets), hardware=CPU)  # fmt: skip
        found.append((loss, [p.grad for p in net.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_average_is_what_its_formula_says_and_comes_back() -> None:
    net = nn.BatchNorm1d(1)
    average = Average(net, 0.9)
    expected = 1.0
    for step in range(1, 41):
        net.weight.data.fill_(float(step))
        net.running_mean.fill_(float(step))
        net.num_batches_tracked.fill_(step)
        average.update(net)
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * step
    assert float(average.net.weight) == pytest.approx(expected, rel=1e-5)
    assert float(average.net.running_mean) == pytest.approx(float(average.net.weight), abs=0.5)
    assert int(average.net.num_batches_tracked) == 40
    again = Average(nn.BatchNorm1d(1), 0.9)
    again.load_state_dict(average.state_dict())
    for one in (average, again):
        one.update(net)
    assert torch.equal(average.net.weight, again.net.weight)


def test_bce_has_the_thresholds_of_its_source() -> None:
    logits, mixed = torch.randn(4, 3), torch.tensor([[0.7, 0.3, 0.0]] * 4)
    loss = recipe_criterion(recipe(loss="bce", target_threshold=0.2), "single")(logits, mixed)
    both = torch.tensor([[1.0, 1.0, 0.0]] * 4)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, both))
    hard = recipe_criterion(recipe(loss="bce"), "single")(logits, torch.tensor([0, 1, 2, 0]))
    eye = torch.eye(3)[[0, 1, 2, 0]]
    torch.testing.assert_close(hard, F.binary_cross_entropy_with_logits(logits, eye))


@pytest.mark.parametrize("task", ["single", "multi"])
def test_focal_is_cross_entropy_at_zero_and_its_formula_above(task: Any) -> None:
    logits, marks = torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 3
    targets = marks if task == "single" else F.one_hot(marks, 3).bool()
    plain = recipe_criterion(recipe(), task)(logits, targets).float()
    zero = recipe_criterion(recipe(loss="focal", focal=0.0), task)(logits, targets)
    torch.testing.assert_close(zero.float(), plain, rtol=1e-5, atol=1e-6)
    two = recipe_criterion(recipe(loss="focal", focal=2.0), task)(logits, targets)
    if task == "single":
        p = logits.softmax(1)[torch.arange(6), marks]
        by_hand = (-((1 - p) ** 2) * p.log()).mean()
    else:
        p = torch.where(targets, logits.sigmoid(), 1 - logits.sigmoid())
        by_hand = (-((1 - p) ** 2) * p.log()).mean()
    torch.testing.assert_close(two, by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", ["single", "multi"])
def test_a_pupil_that_answers_as_its_teacher_has_only_the_labels_to_learn(task: Any) -> None:
    logits, marks = torch.randn(5, 3), F.one_hot(torch.arange(5) % 3, 3).float()
    plan = recipe(temperature=3.0, teacher_share=0.6)
    loss = recipe_criterion(plan, task, taught=True)
    labels = recipe_criterion(plan, task)(logits, marks)
    same = loss(logits, torch.stack([marks, logits], 1))
    torch.testing.assert_close(same, 0.4 * labels, rtol=1e-4, atol=1e-6)
    other = loss(logits, torch.stack([marks, logits.flip(0)], 1))
    assert other > same
    if task == "single":
        p, q = (logits.flip(0) / 3).softmax(1), (logits / 3).softmax(1)
        divergence = (p * (p.log() - q.log())).sum(1).mean()
        torch.testing.assert_close(other, 0.6 * 9 * divergence + 0.4 * labels)


def test_a_softmax_recipe_is_refused_for_several_labels() -> None:
    with pytest.raises(UsageError, match=r"--recipe cifar is for one class an image.*--loss bce"):
        check_loss("softmax", "multi", recipe="cifar")
    for loss, task in (("softmax", "single"), ("bce", "multi"), ("auto", "multi")):
        check_loss(loss, task)  # type: ignore[arg-type]


def test_cutmix_labels_go_by_the_area_that_is_left() -> None:
    images = torch.arange(6.0)[:, None, None, None].expand(6, 1, 9, 7).clone()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mixed, targets = cutmix(images, torch.eye(6), alpha=1.0, rng=rng)
        for row in range(6):
            values, counts = mixed[row].unique(return_counts=True)
            area = torch.zeros(6)
            area[values.long()] = counts / 63
            torch.testing.assert_close(targets[row], area)


class Pixels:
    """Eight images of two classes."""

    images, steps = 8, 2

    def shuffled(self, epoch: int, start: int = 0) -> Any:
        rng = torch.Generator().manual_seed(epoch)
        for at in range(start, 2):
            index = np.arange(4) + 4 * at
            yield (torch.randn(4, 3, 16, 16, generator=rng),), torch.from_numpy(index % 2), index

    def ordered(self) -> Any:
        return self.shuffled(0)


def test_with_both_each_step_takes_mixup_or_cutmix_and_a_trunk_cannot_be_cut() -> None:
    kinds = set()
    for seed in range(8):
        source = Mixed(Pixels(), 2, alpha=0.5, cut=1.0, seed=seed)
        plain = next(iter(Pixels().shuffled(1)))[0][0]
        (images,), _, _ = next(iter(source.shuffled(1)))
        changed = (images != plain).flatten(1).float().mean(1)
        kinds.add("mixup" if bool((changed > 0.99).any()) else "cutmix")
    assert kinds == {"mixup", "cutmix"}

    class Activations(Pixels):
        def shuffled(self, epoch: int, start: int = 0) -> Any:
            for (images,), targets, index in super().shuffled(epoch, start):
                yield (images, images[:, :, 0, 0]), targets, index

    with pytest.raises(UsageError, match="--unfreeze all"):
        next(iter(Mixed(Activations(), 2, alpha=0.0, cut=1.0, seed=0).shuffled(1)))


def test_repeats_come_together_and_shares_of_processes_are_the_epoch() -> None:
    order = Sampling(3).order(10, seed=0, epoch=1)
    assert len(order) == 10
    assert [len(list(group)) for _, group in itertools.groupby(order)] == [3, 3, 3, 1]
    assert times_before(order).tolist() == [0, 1, 2] * 3 + [0]
    assert times_before(np.array([4, 2, 4, 4, 2])).tolist() == [0, 0, 1, 2, 1]
    whole = Feed(4, 1, 0, sampling=Sampling(3)).dealt(12, 1)
    parts = [Feed(4, 1, 0, World(rank, 2), Sampling(3)).dealt(12, 1) for rank in (0, 1)]
    for one, split in zip(whole, zip(*parts, strict=True), strict=True):
        together = np.stack(split, 1).reshape(-1)
        assert sorted(together.tolist()) == sorted(one.tolist())
    later = Feed(4, 1, 0, sampling=Sampling(3)).dealt(12, 1, start=1)
    assert later[1].tolist() == whole[1][4:].tolist()  # as on resume


def test_balanced_draws_rare_classes_as_often() -> None:
    targets = np.array([0] * 900 + [1] * 100)
    order = Sampling(targets=targets).order(1000, seed=0, epoch=1)
    assert 430 < int((targets[order] == 1).sum()) < 570
    assert not np.array_equal(order, Sampling(targets=targets).order(1000, seed=0, epoch=2))
    with pytest.raises(UsageError, match="--balanced"):
        Sampling(targets=np.zeros((4, 2), bool))


def test_sizes_grow_in_steps_of_32_and_time_ends_the_schedule() -> None:
    plan = recipe(epochs=12, train_size=192, first_size=128)
    sizes = [plan.size_at(epoch, 224) for epoch in range(1, 13)]
    assert sizes[0] == 128
    assert set(sizes[8:]) == {192}
    assert sizes == sorted(sizes)
    assert set(sizes) == {128, 160, 192}
    assert recipe(train_size=160).size_at(1, 224) == 160
    assert recipe().size_at(1, 224) == 224
    assert recipe(max_seconds=60.0).time_gone(30) == 0.5
    assert recipe().time_gone(1e9) == 0.0


def test_drop_path_rises_to_its_rate_and_is_gone_in_evaluation() -> None:
    net = small()
    images = torch.randn(2, 3, 16, 16)
    before = net.eval()(images)
    set_drop_path(net, 0.3)
    rates = [block.drop_path.rate for block in blocks(net)]
    assert rates == pytest.approx([0.1, 0.2, 0.3])
    assert torch.equal(net.eval()(images), before)
    training_mode(net, norm_statistics=False)
    torch.manual_seed(0)
    found = [net(images) for _ in range(8)]
    assert any(not torch.equal(found[0], other) for other in found)
    with pytest.raises(UsageError, match="no residual blocks"):
        set_drop_path(plusx.create("cnn", weights="none", classes=2), 0.1)


def test_the_range_test_leaves_the_network_and_suggests_a_rate_that_learns() -> None:
    class Learnable(Pixels):
        def shuffled(self, epoch: int, start: int = 0) -> Any:
            for (images,), targets, index in super().shuffled(epoch, start):
                yield (images + targets[:, None, None, None],), targets, index

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
    before = [p.clone() for p in net.parameters()]
    found = range_test(net, Learnable(), recipe=recipe(momentum=0.0), hardware=CPU,
                       criterion=recipe_criterion(recipe(), "single"))  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert LEAST <= found.rates[0] < found.suggested < MOST
    assert 1e-4 < found.suggested < 1
    assert list(found.rates) == sorted(found.rates)


@pytest.mark.parametrize("wrong", [
    {"accumulate": 9}, {"ema": 1.0}, {"layer_decay": 0.0}, {"optimizer": "adam"}, {"loss": "mse"},
    {"repeats": 0}, {"drop_path": 1.0}, {"clip": -1.0}, {"momentum": 1.0},
])  # fmt: skip
def test_numbers_that_cannot_be_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}"):
        recipe(**wrong)


def test_a_tracker_is_told_each_new_row_once_and_may_fail(tmp_path: Path) -> None:
    from plusx.fit.history import Epoch, History
    from plusx.fit.trackers import _Patient

    class Server:
        def __init__(self, up_to: int) -> None:
            self.told: list[int] = []
            self.closed, self.up_to = False, up_to

        def log(self, figures: Any, epoch: int) -> None:
            if epoch > self.up_to:
                raise OSError("the server is gone\nfor good")
            assert figures["val_top1"] == 0.5
            self.told.append(epoch)

        def close(self) -> None:
            self.closed = True

    sound, dying = Server(9), Server(1)
    notes: list[str] = []
    rows = [Epoch(number, None, 0.5, 0.7, 0.1, 1.0, None) for number in range(4)]
    told = (sound, _Patient("mlflow", dying, notes.append))
    with History(tmp_path, trackers=told) as history:
        history.load_state_dict({"rows": [vars(rows[0])]})  # as on resume: told before
        for row in rows[1:]:
            history.add(row)
    assert (sound.told, sound.closed) == ([1, 2, 3], True)
    assert (dying.told, dying.closed) == ([1], False)
    assert notes == ["--track mlflow: is told no more: the server is gone"]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_fused_step_is_the_plain_one(kind: str) -> None:
    net, plain = small(), small()
    plain.load_state_dict(net.state_dict())
    asked = recipe(optimizer=kind, weight_decay=0.1, decay_norms=True)
    fused = make_optimizer(net, asked)
    assert fused.defaults["fused"]
    options = {"lr": asked.lr, "weight_decay": 0.1, "foreach": False}
    other = (
        torch.optim.AdamW(plain.parameters(), **options)
        if kind == "adamw"
        else torch.optim.SGD(plain.parameters(), momentum=0.9, nesterov=True, **options)
    )
    for seed in range(3):
        gradients = torch.Generator().manual_seed(seed)
        for one, two in zip(net.parameters(), plain.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=gradients)
            two.grad = one.grad.clone()
        fused.step()
        other.step()
    for one, two in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two)
