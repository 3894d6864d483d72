import torch
from torch import nn

from prunet_mm.search.gradients import average_gradients


def test_a_gradient_that_one_process_lacks_counts_as_zero_and_is_not_mixed_with_others(
    in_two_processes,
):
    def work(rank):
        one, other, unused, both = (nn.Parameter(torch.zeros(3)) for _ in range(4))
        here = (one, both) if rank == 0 else (other, both)
        for number, parameter in enumerate(here, start=1):
            parameter.grad = torch.full((3,), 10.0 * number + rank)
        parameters = [one, other, unused, both]
        average_gradients(parameters)
        return [p.grad is not None and p.grad.tolist() for p in parameters]

    first, second = in_two_processes(work)
    assert first == second
    one, other, unused, both = first
    assert one == [5.0] * 3  # 10 and nothing
    assert other == [5.5] * 3  # nothing and 11
    assert both == [20.5] * 3
    assert unused is False  # an optimiser leaves it as it is
