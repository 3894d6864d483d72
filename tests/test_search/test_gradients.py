import os
from multiprocessing import get_context

import torch
import torch.distributed as dist
from torch import nn

from prunet_mm.search.gradients import average_gradients


def in_two_processes(work, tmp_path):
    """Call ``work`` with the rank in two processes that can talk; returns what each returns."""

    def be(rank):
        store = dist.FileStore(str(tmp_path / 'store'), 2)
        dist.init_process_group('gloo', store=store, rank=rank, world_size=2)
        torch.save(work(rank), tmp_path / f'{rank}.pt')
        dist.barrier()
        os._exit(0)

    processes = [get_context('fork').Process(target=be, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    return [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]


def test_a_gradient_that_one_process_lacks_counts_as_zero_and_is_not_mixed_with_others(tmp_path):
    def work(rank):
        one, other, unused, both = (nn.Parameter(torch.zeros(3)) for _ in range(4))
        here = (one, both) if rank == 0 else (other, both)
        for number, parameter in enumerate(here, start=1):
            parameter.grad = torch.full((3,), 10.0 * number + rank)
        parameters = [one, other, unused, both]
        average_gradients(parameters)
        return [p.grad is not None and p.grad.tolist() for p in parameters]

    first, second = in_two_processes(work, tmp_path)
    assert first == second
    one, other, unused, both = first
    assert one == [5.0] * 3  # 10 and nothing
    assert other == [5.5] * 3  # nothing and 11
    assert both == [20.5] * 3
    assert unused is False  # an optimiser leaves it as it is
