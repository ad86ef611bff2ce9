"""Several processes over gloo train as one does."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plusx.errors import PlusxError, UsageError
from plusx.evaluate import Predictions
from plusx.fit.choice import Choice
from plusx.fit.criterion import make_criterion
from plusx.fit.distributed import Processes, joined, joint_norms
from plusx.fit.inputs import Feed
from plusx.fit.kept import Keeping
from plusx.fit.loop import Hardware, all_logits, train_network
from plusx.fit.recipe import Recipe
from plusx.runtime import World

STARTS = multiprocessing.get_context("forkserver")
IMAGES = 22


class Dealt:
    """Points in three classes, dealt out to a process."""

    def __init__(self, batch_size: int, world: World) -> None:
        self._feed = Feed(batch_size, 1, 0, world)
        random = np.random.default_rng(0)
        self.x = torch.tensor(random.normal(size=(IMAGES, 3)), dtype=torch.float32)
        self.y = torch.tensor(np.arange(IMAGES) % 3 // 2 + np.arange(IMAGES) % 2)
        self.images, self.steps = IMAGES, self._feed.steps(IMAGES)

    def _dealt(self, order: Any, size: int) -> Iterator[Any]:
        for at in range(0, len(order), size):
            rows = order[at : at + size]
            yield (self.x[rows],), self.y[rows], rows

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from self._dealt(self._feed.order(IMAGES, epoch, start), self._feed.share)

    def ordered(self) -> Iterator[Any]:
        yield from self._dealt(self._feed.in_order(IMAGES), self._feed.batch_size)


def go(folder: Path, processes: Processes, epochs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    data = Dealt(5, processes.world)
    validation = Predictions(
        logits=np.zeros((IMAGES, 3), np.float32), targets=data.y.numpy(),
        paths=tuple(map(str, range(IMAGES))), classes=("a", "b", "c"),
    )  # fmt: skip
    recipe = Recipe(
        epochs=epochs, batch_size=5, optimizer="sgd", lr=0.05, weight_decay=0.01, warmup=0.1,
        label_smoothing=0.1, patience=0, norm="train", clip=1.0, seed=0,
    )  # fmt: skip
    weights = torch.tensor([1.0, 3.0, 0.5])
    hardware = Hardware(torch.device("cpu"), torch.float32, processes)
    rows = train_network(
        net, data, data, recipe=recipe, hardware=hardware,
        criterion=make_criterion("single", class_weights=weights, label_smoothing=0.1),
        choice=Choice(validation, seed=0), keeping=Keeping(folder, minutes=0.0),
    )  # fmt: skip
    return {
        "net": net.state_dict(),
        "losses": [row.train_loss for row in rows[1:]],
        "figures": [(row.val_top1, row.val_nll) for row in rows],
        "logits": torch.from_numpy(all_logits(net, data, hardware)),
    }


def member(rank: int, size: int, port: int, folder: Path, epochs: int, apart: bool) -> None:
    local = (0, 1) if apart else (rank, size)
    here = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local[0], "LOCAL_WORLD_SIZE": local[1]}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {name: str(value) for name, value in (here | meeting).items()}
    with joined("cpu") as processes:
        assert (processes.shared is None) == apart
        try:
            found = go(folder, processes, epochs)
        except PlusxError as error:
            found = {"error": str(error)}
            torch.save(found, folder / f"{rank}.pt")
            raise
        torch.save(found, folder / f"{rank}.pt")


def together(
    size: int, folder: Path, epochs: int = 3, *, apart: bool = False
) -> list[dict[str, Any]]:
    STARTS.set_forkserver_preload(["plusx.fit.loop", "torch._dynamo"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    started = [STARTS.Process(target=member, args=(rank, size, port, folder, epochs, apart))
               for rank in range(size)]  # fmt: skip
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return go(tmp_path_factory.mktemp("alone"), Processes(), 3)


def close(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one["net"].items():
        torch.testing.assert_close(value, other["net"][name], atol=1e-4, rtol=0)
    np.testing.assert_allclose(one["losses"], other["losses"], atol=1e-4)
    np.testing.assert_allclose(one["figures"], other["figures"], atol=1e-4)
    torch.testing.assert_close(one["logits"], other["logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("size", "apart"), [(2, False), (3, False), (2, True)])
def test_they_train_as_one_does_though_their_shares_differ(
    size: int, apart: bool, alone: dict[str, Any], tmp_path: Path
) -> None:
    """Through memory that they share, and as if on machines of their own."""
    found = together(size, tmp_path / "run", apart=apart)
    close(found[0], alone)
    for other in found[1:]:
        for name, value in found[0]["net"].items():
            assert torch.equal(value, other["net"][name])
        assert other["figures"] == found[0]["figures"]
        assert torch.equal(found[0]["logits"], other["logits"])


def test_fewer_go_on_where_more_stopped(alone: dict[str, Any], tmp_path: Path) -> None:
    together(3, tmp_path / "run", epochs=1)  # its rate falls faster: only position and sums count
    state = torch.load(tmp_path / "run" / "checkpoints" / "before.pt")
    assert (state["position"]["epoch"], state["position"]["step"]) == (1, 4)
    one = go(tmp_path / "one", Processes(), 1)
    assert state["position"]["loss"] / 4 == pytest.approx(one["losses"][0], abs=1e-4)
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.unlink()
    close(together(2, tmp_path / "run", epochs=1)[0], one)


def test_joint_statistics_are_those_of_batchnorm() -> None:
    class Alone(Processes):
        several = True  # type: ignore[assignment]

        def add_up(self, tensor: torch.Tensor) -> None:
            pass

    x = torch.randn(6, 4, 5, 5) * 3 + 100
    norms = [nn.BatchNorm2d(4, momentum=m) for m in (0.1, 0.1)]
    inputs = [x.clone().requires_grad_() for _ in norms]
    answers = []
    for norm, mine, processes in zip(norms, inputs, (Processes(), Alone()), strict=True):
        with joint_norms(norm, processes), torch.no_grad():
            norm.weight.fill_(1.5)
        norm.running_mean.fill_(90.0)
        with joint_norms(norm, processes):
            answers.append(norm(mine))
        (answers[-1] ** 3).mean().backward()
    torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-5, rtol=1e-3)
    for name, value in norms[0].state_dict().items():
        torch.testing.assert_close(value, norms[1].state_dict()[name], atol=1e-4, rtol=1e-4)
    assert "forward" not in vars(norms[1])


def test_a_batchnorm_of_another_kind_is_named() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm3d(2))
    with (
        pytest.raises(UsageError, match=r"layer 1 is a BatchNorm3d, which cannot"),
        joint_norms(net, Processes(World(0, 2))),
    ):
        pass


def test_without_a_place_to_meet_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 3, but MASTER_ADDR"), joined("cpu"):
        pass
