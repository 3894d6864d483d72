import math

import pytest
import torch

from prunet_mm.spec import Candidate, Position
from prunet_mm.supernet import Prunode, SuperNet


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def make_prunode():
    """A Prunode with 4 input channels on a 6 x 6 map, its norms and widths off their defaults."""

    def make(
        op='irb',
        se=0,
        act='relu',
        stride=1,
        out_channels=4,
        widths=(4, 8, 12, 16, 20, 24),
        rule=None,
        dtype=torch.float64,
    ):
        candidate = Candidate(f'{op}_k3', op, 3, act, se, tuple(widths))
        position = Position(1, 2, 4, out_channels, stride, 6, 6, (candidate,))
        prunode = Prunode(position, candidate, rule=rule).to(dtype)
        for name, tensor in [*prunode.block.named_parameters(), *prunode.block.named_buffers()]:
            if 'bn' in name and tensor.is_floating_point():
                tensor.data.uniform_(0.5, 1.5)
        return prunode

    return make


@pytest.fixture
def images():
    """Positive and negative inputs for `make_prunode`, (N, 4, 6, 6)."""
    return torch.randn(5, 4, 6, 6, dtype=torch.float64)


def _space(**stage3):
    return dict(
        name='small',
        resolution=8,
        stem=dict(out_channels=4, stride=1),
        stages=[
            dict(width=4, stride=1, depth=2, ops=['conv'], kernels=[3]),
            dict(
                width=8,
                stride=2,
                depth=3,
                ops=['irb', 'fused_irb'],
                kernels=[3],
                se=True,
                max_expansion=4,
                granularity=4,
            ),
            dict(dict(width=8, stride=2, depth=2, max_expansion=4, granularity=4), **stage3),
        ],
        tail=dict(num_classes=10),
    )


@pytest.fixture
def make_space():
    """The config of a space with every op and SE; options change its last stage."""
    return _space


@pytest.fixture
def make_supernet():
    """A SuperNet of that space, its norms and architecture parameters off their start."""

    def make(space=None, **options):
        supernet = SuperNet(space or _space(), **options)
        for name, tensor in [*supernet.named_parameters(), *supernet.named_buffers()]:
            if 'bn' in name and tensor.is_floating_point():
                tensor.data.uniform_(0.5, 1.5)
            if 'logits' in name:
                tensor.data.uniform_(-0.5, 0.5)
        return supernet

    return make


class StepTable:
    """Latencies that rise in steps of two granules, with a network overhead of 0.25 ms."""

    def block_ms(self, key):
        steps = math.ceil(key.hidden / 8)
        return len(key.op) / 100 + 0.01 * key.in_channels + (0.02 + 0.005 * key.kernel) * steps**1.5

    def predict_ms(self, spec):
        return 0.25 + sum(map(self.block_ms, spec.block_keys()))

    def require(self, keys):
        pass


@pytest.fixture
def table():
    return StepTable()
