"""Pairs are exact, a killed training goes on as if it had not been, padding changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from plusx.errors import UsageError
from plusx.model import ResNet
from plusx.science import degradation
from plusx.science.cifar import SmallImages
from plusx.science.degradation import Plan, pad, plan_of, spec_of, train_one
from plusx.science.degradation_plot import plot
from plusx.science.degradation_result import result
from plusx.science.small_training import Course, Schedule, Watch, seeded, train

PLAN = Plan("laptop", (8, 14), (0, 1), Schedule(iterations=6, batch_size=8, warmup=2), points=3)


def net_of(kind: Any, depth: int = 8, seed: int = 0) -> ResNet:
    net = seeded(lambda: ResNet(spec_of(kind, depth, 2)), seed)
    assert isinstance(net, ResNet)
    return net


def test_a_plain_net_starts_from_its_twins_weights() -> None:
    residual, plain = net_of("residual").state_dict(), net_of("plain").state_dict()
    assert residual.keys() == plain.keys()  # option A has no parameters
    assert all(torch.equal(residual[name], plain[name]) for name in plain)
    assert not torch.equal(residual["head.fc.weight"], net_of("plain", seed=1).head.fc.weight)


class Recorder(torch.nn.Module):
    """Keeps what it sees; its size differs from net to net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.hidden = torch.nn.Linear(3, width)
        self.fc = torch.nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.clone())
        out: torch.Tensor = self.fc(self.hidden(x.mean((2, 3))))
        return out


def test_nets_of_one_seed_see_the_same_pixels_in_the_same_steps(few_images: SmallImages) -> None:
    seen = []
    for width, seed in ((2, 0), (5, 0), (5, 1)):
        net = Recorder(width)
        train(net, few_images, Course(PLAN.schedule, Watch(3), seed))
        seen.append(net.seen)
    assert len(seen[0]) == 6
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[1][0], seen[2][0])


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    few_images: SmallImages, tmp_path: Path
) -> None:
    def run(net: ResNet, checkpoint: Path | None, most: int = 999) -> Any:
        done = 0

        def tick(images: int) -> None:
            nonlocal done
            done += images
            if done > most:
                raise Killed

        return train(net, few_images, Course(PLAN.schedule, Watch(2, 8), 0, tick, checkpoint))

    whole, cut = net_of("residual"), net_of("residual")
    expected = run(whole, None)
    with pytest.raises(Killed):
        run(cut, tmp_path / "c.pt", most=36)
    assert (tmp_path / "c.pt").exists()
    fresh = net_of("residual", seed=5)  # all of it comes from the checkpoint
    found = run(fresh, tmp_path / "c.pt")
    assert found.loss == expected.loss
    assert found.train_error == expected.train_error
    assert found.iteration == [2, 4, 6]
    ours, theirs = fresh.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "c.pt").exists()


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_a_padded_net_computes_what_the_shallow_one_does(
    kind: Any, randomise: Callable[[ResNet], ResNet]
) -> None:
    shallow = randomise(net_of(kind))
    deep = pad(shallow, 20)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert deep.spec.depths == (3, 3, 3)
        assert torch.allclose(deep(x), shallow(x), rtol=1e-5, atol=1e-6)
        last = list(deep.stages[0].children())[-1]
        last.residual.norm2.bias.add_(0.1)
        assert not torch.allclose(deep(x), shallow(x), rtol=1e-3)
    with pytest.raises(UsageError, match="depth 8 is less"):
        pad(deep, 8)


def test_the_recipes_are_the_papers_and_a_share_of_them() -> None:
    paper = degradation.PAPER.schedule
    assert [paper.lr_at(i) for i in (0, 31_999, 32_000, 48_000)] == [0.1, 0.1, 0.01, 0.001]
    deep = degradation.schedule_of(degradation.PAPER, 110)
    assert [deep.lr_at(i) for i in (0, 399, 400)] == [0.01, 0.01, 0.1]
    short = plan_of("paper", iterations=640, depths=(20,))
    assert short.schedule.milestones == (320, 480)
    assert short.depths == (20,)
    for wrong, said in (({"depths": (21,)}, "6n"), ({"iterations": 0}, "at least 1"),
                        ({"seeds": (1, 1)}, "twice")):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            plan_of("laptop", **wrong)
    with pytest.raises(UsageError, match="not one of laptop, paper"):
        plan_of("lap")


def value(error: float, *, diverged: bool = False, padded: dict[str, Any] | None = None) -> Any:
    columns = {name: [1.0] for name in ("iteration", "epoch", "seconds", "loss")}
    errors = {"train_error": [error], "test_error": [error]}
    curve = columns | errors | {"cpu_seconds": 1.0, "diverged": diverged}
    return {"curve": curve, "parameters": 1, "padded": padded or {}}


def test_the_finding_says_what_the_numbers_say() -> None:
    errors = {("plain", 8): 0.2, ("residual", 8): 0.2, ("plain", 14): 0.35, ("residual", 14): 0.1}
    values = [
        value(errors[key["kind"], key["depth"]] + 0.01 * key["seed"] * (key["depth"] == 14),
              padded={"14": [0.2, 0.3]} if key["depth"] == 8 else None)
        for key in degradation.keys(PLAN)
    ]  # fmt: skip
    found = result(PLAN, values, ("a", "b"))
    assert "plain-14 less plain-8 in training error: +15.5 points" in found.finding
    assert "higher in 2 of 2 seeds" in found.finding
    assert "residual-14 less residual-8 in training error: -9.5 points" in found.finding
    assert "higher in 0 of 2 seeds" in found.finding
    assert "padded with identity layers to 14, the trained plain-14 stands at +15.5" in (
        found.finding
    )
    values[2] = value(float("nan"), diverged=True)  # plain-14 of seed 0
    found = result(PLAN, values, ("a", "b"))
    assert "higher in 1 of 1 seeds" in found.finding
    assert "1 of 8 trainings diverged" in found.finding
    row = next(r for r in found.tables["summary"] if (r["kind"], r["depth"]) == ("plain", 14))
    assert (row["seeds"], row["diverged"]) == (1, 1)
    lost = result(PLAN, [value(math.nan, diverged=True)] * 8, ("a", "b"))
    assert "no pair of depths was trained to the end" in lost.finding
    assert "8 of 8 trainings diverged" in lost.finding
    assert len(plot(lost).axes) == 3  # drawn all the same


def test_a_training_that_blows_up_is_counted(few_images: SmallImages) -> None:
    schedule = Schedule(iterations=6, batch_size=8, lr=1e30)
    plan = Plan("laptop", (8,), (0,), schedule, points=6)
    found, _ = train_one(plan, few_images, {"kind": "plain", "depth": 8, "seed": 0})
    assert found["curve"]["diverged"]
    assert len(found["curve"]["iteration"]) < 6


def test_the_command_trains_keeps_and_does_not_repeat(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    for number in range(16):
        part = "train" if number < 12 else "test"
        place = tmp_path / "data" / part / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        colour = (40 + 120 * (number % 2), number, 90)
        Image.new("RGB", (32, 32), colour).save(place / f"{number:02}.png")
    asked = ("study", "degradation", "--data", tmp_path / "data", "--depths", "8,14",
             "--seeds", "0", "--iterations", "2", "--threads", 1,
             "--out", tmp_path / "out")  # fmt: skip
    said = command(*asked)
    assert said.code == 0, said.err
    assert "plain-14 less plain-8" in said.out
    assert "4 of 4 done" in said.err
    kept = json.loads((tmp_path / "out" / "degradation.json").read_text())
    assert kept["settings"]["depths"] == [8, 14]
    for name in ("degradation.svg", "degradation.png", "curves.csv", "nets/plain-14-seed0"):
        assert (tmp_path / "out" / name).exists()
    again = command(*asked)
    assert "4 of 4 pieces were finished before" in again.err
    assert again.out == said.out
    assert "about" in command(*asked, "--estimate").out
    assert "--seeds '0,x' must be whole numbers" in command(*asked, "--seeds", "0,x").error
    days = command(*asked, "--preset", "paper", "--iterations", "64000", "--depths", "1202")
    assert "days on this CPU; give --device cuda" in days.error
    assert "--processes 0 must be at least 1" in command(*asked, "--processes", "0").error
