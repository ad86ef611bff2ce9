"""Several processes that train one network together; a single one exchanges nothing.

Every process takes its part of the images of a step. Gradients are added up over the processes,
each weighted by how much its images count, so that a step is that of one process with all of them
(Goyal et al. 2017, arXiv 1706.02677, section 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from plusx.errors import PlusxError, ProcessLost, UsageError
from plusx.fit.shared_sums import SharedSums, reserve
from plusx.runtime import World, has_launcher, world

T = TypeVar("T")

_PATIENCE = timedelta(hours=6)
"""How long a process waits for another: the first one may audit and score for hours meanwhile. One
that died is noticed at once, by its closed connection."""


@dataclass(frozen=True)
class Processes:
    """Those of one training, and which one this is.

    Every method but ``world`` is called by all of them alike, or they wait for each other in vain.

    Attributes:
        world: this process among them.
        shared: memory through which sums go, where all are on one machine; else gloo or NCCL.
    """

    world: World = field(default_factory=World)
    shared: SharedSums | None = None

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world.size > 1

    def totals(self, *amounts: float) -> list[float]:
        """Each amount, summed over the processes."""
        if not self.several:
            return list(amounts)
        found = torch.tensor(amounts, dtype=torch.float64)
        self.add_up(found)
        return [float(value) for value in found]

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of them."""
        return self.totals(float(flag))[0] > 0

    def add_up(self, tensor: Tensor) -> None:
        """Sum over the processes, in place."""
        if self.several:
            with _heard():
                if self.shared is not None and self.shared.takes(tensor):
                    self.shared.add_up(tensor)
                else:
                    dist.all_reduce(tensor)

    def add_up_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over the processes, in one message for each dtype."""
        if not self.several:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for dtype in sorted({g.dtype for g in gradients}, key=str):
            ours = [g for g in gradients if g.dtype == dtype]
            together = torch.cat([g.reshape(-1) for g in ours])
            self.add_up(together)
            for gradient, part in zip(
                ours, torch.split(together, [g.numel() for g in ours]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))

    def first_says(self, value: Callable[[], T]) -> T:
        """What the first process finds, in all of them; it must be plain data or tensors."""
        if not self.several:
            return value()
        box: list[Any] = [value() if self.world.is_main else None]
        with _heard():
            dist.broadcast_object_list(box)
        found: T = box[0]
        return found

    @contextmanager
    def node_first(self) -> Iterator[None]:
        """One process of each machine runs the block before the others of that machine do."""
        if self.several and self.world.local_rank:
            self.barrier()
        yield
        if self.several and not self.world.local_rank:
            self.barrier()

    def barrier(self) -> None:
        """Wait until all are here."""
        self.totals(0.0)


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that a launcher such as torchrun started together, connected.

    An error that reaches the end of the block is marked with whether another process failed before
    and tells the user.

    Args:
        device: as asked for; GPUs talk over NCCL, all else over gloo.

    Raises:
        UsageError: there are several, but nothing says where they meet.
        ProcessLost: they cannot meet.
    """
    here = world()
    if here.size == 1:
        yield Processes()
        return
    if not has_launcher():
        raise UsageError(
            f"WORLD_SIZE is {here.size}, but MASTER_ADDR and MASTER_PORT don't say where the "
            "processes meet; start them with torchrun, or unset WORLD_SIZE"
        )
    with _heard():
        store, rank, size = next(iter(rendezvous("env://", timeout=_PATIENCE)))
        gpu = device != "cpu" and torch.cuda.is_available()
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        if gpu:
            torch.cuda.set_device(here.local_rank)
        dist.init_process_group(
            backend, store=PrefixStore("plusx", store), rank=rank, world_size=size,
            timeout=_PATIENCE,
        )  # fmt: skip
    shared: SharedSums | None = None
    try:
        shared = _shared(here)
        yield Processes(here, shared)
    except PlusxError as error:
        error.said_elsewhere = not _fails_first(store)
        raise
    finally:
        if shared is not None:
            shared.leave()
        dist.destroy_process_group()


def _shared(here: World) -> SharedSums | None:
    """Memory that the processes share, where all are on this machine and all can open it."""
    if here.local_size != here.size:
        return None
    apart = Processes(here)
    file = apart.first_says(lambda: reserve(here.size))
    if file is None:
        return None
    try:
        mine = SharedSums(file, here.rank, here.size)
    except OSError:
        mine = None
    everyone = apart.totals(float(mine is not None))[0] == here.size
    if here.is_main:
        file.unlink()
    return mine if everyone else None


def _fails_first(store: Store) -> bool:
    try:
        return int(store.add("plusx failures", 1)) == 1
    except RuntimeError:  # whoever kept the store is gone too
        return True


@contextmanager
def _heard() -> Iterator[None]:
    """What the library says of a lost connection, in one line."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, PlusxError):
            raise
        raise ProcessLost(
            "another process of this training ended, so all stop; go on with plusx train --resume "
            "RUN, in as many processes as there are"
        ) from error


@contextmanager
def joint_norms(net: nn.Module, processes: Processes) -> Iterator[None]:
    """While it lasts, BatchNorm in training mode takes its statistics over the whole step.

    That is what torch's SyncBatchNorm does, which is for GPUs alone; this runs on all devices, and
    also where the processes have unequally many images.

    Raises:
        UsageError: a layer is a BatchNorm of a kind of its own, which cannot be replaced.
    """
    changed: list[nn.Module] = []
    if processes.several:
        for name, module in net.named_modules():
            if not isinstance(module, nn.modules.batchnorm._BatchNorm):
                continue
            if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d):
                raise UsageError(
                    f"--norm train: layer {name} is a {type(module).__name__}, which cannot take "
                    "statistics over several processes; use one process, or --norm eval"
                )
            # On the instance: modules, names and sharing between parts of a net stay.
            module.__dict__["forward"] = partial(_joint_norm, module, processes)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _joint_norm(norm: nn.modules.batchnorm._BatchNorm, processes: Processes, x: Tensor) -> Tensor:
    """(N, C, ...) -> the same shape, as ``norm`` does it, by the statistics of all processes."""
    if not norm.training:
        plain: Tensor = type(norm).forward(norm, x)
        return plain
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var, n = _joint_statistics(x.detach(), processes)
    with torch.no_grad():
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
        share = norm.momentum
        if share is None:
            share = 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(var * n / (n - 1), share)
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    answer: Tensor = _JointNorm.apply(x, weight, bias, (mean, var, n), norm.eps, processes)
    return answer


def _joint_statistics(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, float]:
    """Of (N, C, ...): mean and biased variance (C), float32, over all processes, and of how many
    values; N may be 0 in some of them."""
    channels, count = x.shape[1], x.numel() // x.shape[1]
    mean = var = torch.zeros(channels, device=x.device)
    if count:
        mean, var = torch.batch_norm_update_stats(x, mean.clone(), var.clone(), 0.0)
    sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
    middle = mean.double()
    sums[:channels] = count * middle
    sums[channels:-1] = count * (var.double() + middle.square())
    sums[-1] = count
    processes.add_up(sums)
    middle = sums[:channels] / sums[-1]
    spread = (sums[channels:-1] / sums[-1] - middle.square()).clamp_min(0)
    return middle.float(), spread.float(), float(sums[-1])


class _JointNorm(torch.autograd.Function):
    """BatchNorm by given statistics, which depend on the images of all processes.

    The gradient is that of Ioffe and Szegedy 2015 (arXiv 1502.03167, section 3) with sums over all
    processes. Each pass over the maps is one of torch's own kernels.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: tuple[Tensor, Tensor, float],
        eps: float,
        processes: Processes,
    ) -> Tensor:
        mean, var, ctx.n = statistics
        ctx.eps, ctx.processes = eps, processes
        ctx.save_for_backward(x, weight, mean, var)
        return torch.batch_norm(x, weight, bias, mean, var, False, 0.0, eps, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        scale = (var + ctx.eps).rsqrt()
        if len(x):
            direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, mean, var, mean, scale, False, ctx.eps, [True, True, True]
            )
        else:
            direct, of_weight, of_bias = gradient, torch.zeros_like(mean), torch.zeros_like(mean)
        sums = torch.cat([of_bias, of_weight])
        ctx.processes.add_up(sums)
        over_bias, over_weight = torch.split(sums, len(mean))
        slope = weight * scale.square() * over_weight / ctx.n
        level = weight * scale * over_bias / ctx.n - slope * mean
        nought, one = torch.zeros_like(mean), torch.ones_like(mean)
        through = torch.batch_norm(x, slope, level, nought, one, False, 0.0, 0.0, False)
        return direct - through, of_weight, of_bias, None, None, None
