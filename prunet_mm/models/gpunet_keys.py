"""The names that NVIDIA's GPUNet checkpoints and our classifiers give to the same tensors.

Both layouts list a network's tensors in the order in which data flows, so one list with both names,
derived from the `NetworkSpec`, is the whole mapping. NVIDIA's names are known to us for networks
with one convolution in the head and one in the tail. Those of the longer heads and tails of
GPUNet-D1 and -D2 are not, and are an assumption here. So :func:`from_nvidia` goes by the order and
the shapes of the tensors wherever a name is not the expected one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from prunet_mm.errors import CheckpointError
from prunet_mm.spec import LayerSpec, NetworkSpec, load_zoo, zoo_names

Shape = tuple[int, ...]


class Slot(NamedTuple):
    """One tensor of a classifier: its name in NVIDIA's layout, that in ours, and its shape."""

    nvidia: str
    ours: str
    shape: Shape


class Match(NamedTuple):
    """The network that a state dict was found to be of.

    Attributes:
        slots: Its tensors in order.
        keys: What the state dict calls each of them.
    """

    spec: NetworkSpec
    slots: list[Slot]
    keys: list[str]


def from_nvidia(shapes: Mapping[str, Sequence[int]], source: str) -> Match:
    """Recognises a network of the zoo in NVIDIA's layout.

    If all names are expected ones they decide, in whatever order they come. If not, the order does,
    and of a name only the last part counts, such as ``running_mean``.

    Args:
        shapes: The shape of every tensor by its key, without a ``module.`` in front.
        source: What an error names as the place where they are from.

    Raises:
        CheckpointError: It is no network of the zoo; says which is nearest, and the first tensor
            that differs.
    """
    return _match(shapes, source, 'nvidia', lambda key: (_part(key), key.rpartition('.')[2]))


def from_ours(shapes: Mapping[str, Sequence[int]], source: str) -> Match:
    """Recognises a network of the zoo in our layout, by names and shapes; see `from_nvidia`."""
    return _match(shapes, source, 'ours', lambda key: key)


def nvidia_names_are_known(spec: NetworkSpec) -> bool:
    """Whether NVIDIA's names for such a head and tail are known to us, rather than assumed."""
    return len(spec.stem) == 1 and not spec.tail.features


def slots(spec: NetworkSpec) -> list[Slot]:
    """All tensors of a classifier, in the order of the layers.

    Args:
        spec: A network with a tail.
    """
    return list(_slots(spec))


def _slots(spec: NetworkSpec) -> Iterator[Slot]:
    # NVIDIA numbers the parts of a network: the head, whatever its length, is 2.
    head = [layer for layer in spec.stem if layer.op == 'conv']
    for index, layer in enumerate(head):
        net = 'network.head: 2.net'  # conv, norm, act, conv, norm, act, ...
        shape = layer.out_channels, layer.in_channels, layer.kernel, layer.kernel
        ours = f'backbone.stem.{index}.conv'
        yield from _conv_norm(f'{net}.{3 * index}', f'{net}.{3 * index + 1}', ours, shape)
    number, index = 3, {0: len(head)}
    for layer in (*spec.stem[len(head) :], *spec.layers):
        part = f'stage{layer.stage}' if layer.stage else 'stem'
        ours = f'backbone.{part}.{index.setdefault(layer.stage, 0)}'
        yield from _block(layer, f'network.stage: {layer.stage} layer{number}', ours)
        index[layer.stage] += 1
        number += 1
    yield from _tail(spec, f'network. layer{number}.net')


def _block(layer: LayerSpec, nvidia: str, ours: str) -> Iterator[Slot]:
    channels, hidden, out, k = layer.in_channels, layer.hidden, layer.out_channels, layer.kernel
    project = 'conv_pwl', 'project', (out, hidden, 1, 1)
    convs = {
        'conv': [('conv', 'conv', (out, channels, k, k))],
        'irb': [
            ('conv_pw', 'expand', (hidden, channels, 1, 1)),
            ('conv_dw', 'depthwise', (hidden, 1, k, k)),
            project,
        ],
        'fused_irb': [('conv_exp', 'expand', (hidden, channels, k, k)), project],
    }
    for number, (conv, module, shape) in enumerate(convs[layer.op], 1):
        if module == 'project' and layer.se:
            reduce, expand = (layer.se, hidden, 1, 1), (hidden, layer.se, 1, 1)
            yield from _biased(f'{nvidia}.se.conv_reduce', f'{ours}.se.reduce', reduce)
            yield from _biased(f'{nvidia}.se.conv_expand', f'{ours}.se.expand', expand)
        conv, norm = f'{nvidia}.{conv}', f'{nvidia}.bn{number}'
        yield from _conv_norm(conv, norm, f'{ours}.{module}', shape)


def _tail(spec: NetworkSpec, net: str) -> Iterator[Slot]:
    tail, width = spec.tail, spec.tail.channels
    shape = width, spec.layers[-1].out_channels, 1, 1
    yield from _conv_norm(f'{net}.0', f'{net}.1', 'neck.conv', shape)
    linear = 6  # behind conv, norm, act, pool, flatten, dropout
    if tail.features:
        shape = tail.features, width, 1, 1
        yield Slot(f'{net}.4.weight', 'neck.features.conv.weight', shape)
        width, linear = tail.features, 8
    yield from _biased(f'{net}.{linear}', 'head.fc', (tail.num_classes, width))


def _conv_norm(conv: str, norm: str, ours: str, shape: Shape) -> Iterator[Slot]:
    yield Slot(f'{conv}.weight', f'{ours}.conv.weight', shape)
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
        yield Slot(f'{norm}.{name}', f'{ours}.bn.{name}', shape[:1])
    yield Slot(f'{norm}.num_batches_tracked', f'{ours}.bn.num_batches_tracked', ())


def _biased(nvidia: str, ours: str, shape: Shape) -> Iterator[Slot]:
    yield Slot(f'{nvidia}.weight', f'{ours}.weight', shape)
    yield Slot(f'{nvidia}.bias', f'{ours}.bias', shape[:1])


def _part(key: str) -> str:
    return key.partition('.')[0]


def _match(
    shapes: Mapping[str, Sequence[int]], source: str, layout: str, essence: Callable[[str], object]
) -> Match:
    """Compares with every network of the zoo, by shape and by what of a name is essential."""
    misfits = []
    for spec in map(load_zoo, zoo_names()):
        wanted = slots(spec)
        names = {getattr(slot, layout): slot.shape for slot in wanted}
        known = shapes.keys() <= names.keys()
        found = {key: tuple(shapes[key]) for key in (names if known else shapes) if key in shapes}
        matcher = SequenceMatcher(
            None, *([(essence(k), s) for k, s in one.items()] for one in (names, found)), False
        )
        if matcher.a == matcher.b:
            return Match(spec, wanted, list(found))
        misfits.append((matcher, spec, names, found))
    matcher, spec, names, found = max(misfits, key=lambda misfit: misfit[0].ratio())
    raise CheckpointError(
        f'{source}: none of {", ".join(zoo_names())}; the nearest is {spec.name}, but '
        + _difference(matcher, names, found)
    )


def _difference(matcher: SequenceMatcher, names: dict[str, Shape], found: dict[str, Shape]) -> str:
    """What is the matter with the first tensor that is not as it should be."""
    kind, a, _, b, _ = next(code for code in matcher.get_opcodes() if code[0] != 'equal')
    if kind == 'insert':
        key, shape = list(found.items())[b]
        return f'{key!r} of shape {list(shape)} is no part of that'
    name, wanted = list(names.items())[a]
    if kind == 'delete':
        return f'{name!r} of shape {list(wanted)} is missing'
    key, shape = list(found.items())[b]
    if key == name:
        return f'{key!r} has shape {list(shape)} instead of {list(wanted)}'
    return f'it has {key!r} of shape {list(shape)} in place of {name!r} of shape {list(wanted)}'
