"""Whether our networks compute what NVIDIA's code computes.

For each network ``tests/data/gpunet`` holds the names and shapes of the tensors in NVIDIA's state
dict, and the logits that NVIDIA's own implementation returns in evaluation mode, float32, on a CPU,
for the weights and the image that are made here from nothing but names, shapes and fixed seeds.
"""

import json
import math
from binascii import crc32

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from prunet_mm.models.gpunet_keys import from_nvidia


def filled(name: str, shape: list[int]) -> torch.Tensor:
    """The tensor of this name: normal values from a seed of its own, scaled by what it is."""
    part = name.rpartition('.')[2]
    if part == 'num_batches_tracked':
        return torch.tensor(0)
    normal = np.random.default_rng(crc32(name.encode())).standard_normal(shape)
    values = torch.from_numpy(normal).float()
    if part == 'running_var':
        return values.abs() + 0.5
    if part in ('running_mean', 'bias'):
        return values * 0.1
    if len(shape) == 1:
        return values * 0.1 + 1
    # In double precision, which decides the last bit.
    return (values.double() * math.sqrt(2 / math.prod(shape[1:]))).float()


def image(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, size, size))).float()


@pytest.mark.parametrize('name', ['prunet_p0', 'gpunet_0', 'gpunet_1'])
def test_logits_are_those_of_nvidias_code(name, root):
    golden = json.loads((root / f'tests/data/gpunet/{name}.json').read_text())
    match = from_nvidia(golden['keys'], 'golden')
    assert match.spec.name == name
    assert match.spec.resolution == golden['resolution']

    tail = match.spec.tail
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='PRUNet', arch=name),
            neck=dict(
                type='PRUNetTail',
                in_channels=match.spec.layers[-1].out_channels,
                channels=tail.channels,
                act=tail.act,
            ),
            head=dict(
                type='LinearClsHead', num_classes=tail.num_classes, in_channels=tail.channels
            ),
        )
    )
    assert sum(p.numel() for p in model.parameters()) == golden['params']
    pairs = zip(match.slots, match.keys, strict=True)
    model.load_state_dict({slot.ours: filled(key, slot.shape) for slot, key in pairs}, strict=True)

    with torch.no_grad():
        (logits,) = model.eval()(image(golden['resolution']), mode='tensor')
    expected = torch.tensor(golden['logits'])
    error = (logits - expected).abs().max() / expected.abs().max()
    assert error < 1e-4
