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
from plusx.runtime import World, has_launcher, world

T = TypeVar("T")

_PATIENCE = timedelta(hours=6)
"""How long a process waits for another: the first one may audit and score for hours meanwhile. One
that died is noticed at once, by its closed connection."""


@dataclass(frozen=True)
class Processes:
    """Those of one training, and which one this is.

    Every method but ``world`` is called by all of them alike, or they wait for each other in vain.
    """

    world: World = field(default_factory=World)

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
    try:
        yield Processes(here)
    except PlusxError as error:
        error.said_elsewhere = not _fails_first(store)
        raise
    finally:
        dist.destroy_process_group()


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


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        total = x.clone(memory_format=torch.contiguous_format)
        processes.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        ctx.processes.add_up(total)
        return total, None


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
    channels, dims = x.shape[1], [0, *range(2, x.ndim)]
    shape = (1, channels, *[1] * (x.ndim - 2))
    # Moved near zero first, so that the variance is not a small difference of large numbers.
    shift = norm.running_mean.clone()
    near = x.float() - shift.view(shape)
    count = torch.full((1,), x.numel() / channels, device=x.device)
    sums = _Sum.apply(torch.cat([near.sum(dims), near.square().sum(dims), count]), processes)
    n = sums[-1].detach()
    mean = sums[:channels] / n
    var = (sums[channels:-1] / n - mean.square()).clamp_min(0)
    with torch.no_grad():
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
        share = norm.momentum
        if share is None:
            share = 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean + shift, share)
        norm.running_var.lerp_(var * n / (n - 1), share)
    out = (near - mean.view(shape)) * (var + norm.eps).rsqrt().view(shape)
    if norm.affine:
        out = torch.addcmul(norm.bias.view(shape), out, norm.weight.view(shape))
    answer: Tensor = out.to(x.dtype)
    return answer
