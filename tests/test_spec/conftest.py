import copy

import pytest

from prunet_mm.spec import SearchSpace, load_zoo


@pytest.fixture
def tiny():
    """A space small enough to enumerate: fused and plain IRB, conv, SE, a stage of two layers."""
    return SearchSpace.from_dict(
        dict(
            name='tiny',
            resolution=8,
            stem=dict(out_channels=4, stride=1),
            stages=[
                dict(width=4, stride=1, depth=2, ops=['conv'], kernels=[3]),
                dict(
                    width=8,
                    stride=2,
                    depth=3,
                    first_ops=['conv', 'irb'],
                    ops=['irb', 'fused_irb'],
                    kernels=[3],
                    se=True,
                    max_expansion=2,
                    granularity=8,
                ),
                dict(width=8, stride=2, depth=1, max_expansion=2, granularity=4, act='swish'),
            ],
            tail=dict(channels=16, num_classes=10),
        )
    )


@pytest.fixture
def edited():
    """P0 as a dict with the value at a path replaced, or taken out where none is given."""

    def edit(path, *value):
        data = inner = copy.deepcopy(load_zoo('prunet_p0').to_dict())
        for part in path[:-1]:
            inner = inner[part]
        if value:
            inner[path[-1]] = value[0]
        else:
            del inner[path[-1]]
        return data

    return edit
