"""NAS-Bench-Macro's networks as ours, and the accuracies that were measured of them.

The benchmark (Su et al., *Prioritized Architecture Sampling with Monto-Carlo Tree Search*, CVPR
2021, arXiv 2103.11922; https://github.com/xiusu/NAS-Bench-Macro) trained 6,561 networks on
CIFAR-10. A code such as ``12012012`` has one digit per layer: 0 identity (in the first layer of a
stage a shortcut), 1 inverted residual of kernel 3 and expansion 3, 2 of kernel 5 and expansion 6.
Which of a stage's later layers is the identity changes nothing, so they are 3,969 networks; the
file gives equal networks equal accuracies. What it calls ``flops`` are multiply-accumulates of
convolutions and of the linear layer, without BN: `NetworkSpec.macs`.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from prunet_mm.errors import ConfigError
from prunet_mm.spec import NetworkSpec, SearchSpace

DEPTHS = (2, 3, 3)
BLOCKS = {'1': ('irb', 3, 3), '2': ('irb', 5, 6)}  # op, kernel, expansion
CANDIDATES = [dict(op=op, kernel=k, expansions=[ratio]) for op, k, ratio in BLOCKS.values()]
SPACE = dict(
    name='nas_bench_macro',
    resolution=32,
    stem=dict(out_channels=32, stride=1),
    stages=[
        dict(
            width=width,
            stride=2,
            depth=depth,
            first_candidates=[dict(op='shortcut', kernel=1), *CANDIDATES],
            candidates=CANDIDATES,
        )
        for width, depth in zip((64, 128, 256), DEPTHS, strict=True)
    ],
    tail=dict(channels=1280, num_classes=10),
)


@cache
def space() -> SearchSpace:
    """All networks of the benchmark, each once."""
    return SearchSpace.from_dict(SPACE)


def to_spec(code: str) -> NetworkSpec:
    """The network of a code.

    Raises:
        ConfigError: It is no code of eight digits 0, 1 and 2.
    """
    if len(code) != sum(DEPTHS) or set(code) - set('012'):
        raise ConfigError(f'found the code "{code}", expected {sum(DEPTHS)} digits, each 0, 1 or 2')
    choices = []
    for digit, position in zip(code, space().positions(), strict=True):
        if digit == '0' and position.skippable:
            continue
        candidate = position.candidates[int(digit) - position.skippable]
        choices.append((position, candidate, max(candidate.widths, default=0)))
    return space().network(choices, code)


def to_code(spec: NetworkSpec) -> str:
    """The code of a network of the space, the identities last in each stage.

    Raises:
        ConfigError: The network is not in the space.
    """
    if wrong := space().why_not(spec):
        raise ConfigError(f'the network {spec.name} is not in {SPACE["name"]}: {wrong}')
    stages = [''] * len(DEPTHS)
    for layer in spec.layers:
        block = layer.op, layer.kernel, layer.hidden // layer.in_channels
        digits = (digit for digit, one in BLOCKS.items() if one == block)
        stages[layer.stage - 1] += next(digits, '0')
    return ''.join(map(_padded, stages, DEPTHS))


def canonical(code: str) -> str:
    """The same network's code with the identities last in each stage."""
    stages, left = [], code
    for depth in DEPTHS:
        first, *later = left[:depth]
        stages.append(_padded(first + ''.join(later).replace('0', ''), depth))
        left = left[depth:]
    return ''.join(stages)


def truth(path: str | os.PathLike) -> dict[str, float]:
    """Accuracy in % of each network: the mean of its three trainings.

    Args:
        path: The benchmark's ``nas-bench-macro_cifar10.json``.

    Returns:
        By canonical code.

    Raises:
        ConfigError: The file cannot be read, or does not hold the benchmark.
    """
    try:
        entries = json.loads(Path(path).read_text('utf-8'))
        found = {canonical(code): float(entry['mean_acc']) for code, entry in entries.items()}
    except OSError as error:
        raise ConfigError(f'cannot read the benchmark {path}: {error.strerror}') from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f'{path}: not the JSON file of NAS-Bench-Macro') from error
    if missing := space().size() - len(found):
        raise ConfigError(f'{path}: {abs(missing)} networks too {"few" if missing > 0 else "many"}')
    return found


def _padded(digits: str, depth: int) -> str:
    return digits.ljust(depth, '0')
