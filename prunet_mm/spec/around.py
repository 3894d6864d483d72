"""The search space around a network: its own layers, narrower or wider, other kernels, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from prunet_mm.errors import SpecError
from prunet_mm.spec.kernels import INVERTED
from prunet_mm.spec.layer import LayerSpec
from prunet_mm.spec.network import NetworkSpec
from prunet_mm.spec.validation import (
    Name,
    OddInt,
    PositiveInt,
    Some,
    Spec,
    expecting,
    shown,
)
from prunet_mm.spec.zoo import load_zoo


def _layers(value: Any) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError


Layers = Annotated[
    Any,
    AfterValidator(_layers),
    expecting('True, False or a list of layers, such as "stage2.layer3"'),
]
Growth = Annotated[
    float,
    Field(ge=1, allow_inf_nan=False),
    expecting('a number of at least 1, since the network itself is in its space'),
]


class Around(Spec):
    """What a config says of such a space; `space` makes it plain data of a `SearchSpace`.

    Attributes:
        arch: The network: a name in the zoo, the path of a JSON file, or its content.
        name: What the space is called; after the network by default.
        resolution: Rows and columns of the images in pixels; the network's by default.
        num_classes: What the tail tells apart; as many as the network by default.
        granularity: Hidden widths are the network's own and those in steps of this many channels
            from there.
        largest: The largest hidden width as a share of the network's own.
        kernels: What an inverted residual's k x k convolution may have beside its own kernel.
        fused: Which inverted residuals may be fused ones, too, of the same kernels and widths: all,
            none, or these. A trained network has no weights for them; they imitate it.
        skip: Whether layers may be left out: all that can be (those behind the first of a stage),
            none, or these.
        fixed_stages: Stages that stay as they are, by their number.
        out_indices: Stages whose maps are wanted: what comes behind the last is left out, and so is
            the tail. None for the whole network.
    """

    type: Literal['around']
    arch: Any
    name: Name | None = None
    resolution: PositiveInt | None = None
    num_classes: PositiveInt | None = None
    granularity: PositiveInt = 8
    largest: Growth = 1.0
    kernels: Some[OddInt] = (3, 5)
    fused: Layers = False
    skip: Layers = True
    fixed_stages: Some[PositiveInt] = ()
    out_indices: Some[PositiveInt] | None = None

    def space(self, source: str) -> dict[str, Any]:
        """The fields of the `SearchSpace`.

        Args:
            source: What an error names as the place where this is from.

        Raises:
            SpecError: The network cannot be read or is no chain of such stages, or a stage or layer
                is not there.
        """
        spec = self._network(source)
        stages: dict[int, list[LayerSpec]] = {}
        for layer in spec.layers:
            stages.setdefault(layer.stage, []).append(layer)
        self._check(stages, spec, source)
        last = max(self.out_indices or stages)
        stem = spec.stem[0].model_dump(include={'out_channels', 'kernel', 'stride', 'act'})
        if spec.stem[0].padding == 'same':
            stem['padding'] = 'same'
        origin = self._fitted(spec, last).to_dict()
        kept = ('resolution', 'in_channels', 'norm_eps', 'preprocessing', 'tail')
        return dict(
            name=self.name or f'around_{spec.name}',
            stem=stem,
            stages=[self._stage(stages[number]) for number in range(1, last + 1)],
            **{field: origin[field] for field in kept if field in origin},
            origin=origin,
        )

    def _fitted(self, spec: NetworkSpec, last: int) -> NetworkSpec:
        """The network with the images, classes and stages that are asked for."""
        tail = None if self.out_indices else spec.tail
        if tail and self.num_classes:
            tail = tail.model_copy(update=dict(num_classes=self.num_classes))
        layers = tuple(layer for layer in spec.layers if layer.stage <= last)
        fields = dict(tail=tail, layers=layers, resolution=self.resolution or spec.resolution)
        return spec.model_copy(update=fields)

    def _network(self, source: str) -> NetworkSpec:
        if isinstance(self.arch, Mapping):
            return NetworkSpec.from_dict(self.arch, source=f'{source}: arch')
        if not isinstance(self.arch, str):
            raise SpecError(
                f'{source}: arch: found {shown(self.arch)}, expected a name in the zoo, the path '
                'of a .json file, or a dict'
            )
        return (NetworkSpec.load if self.arch.endswith('.json') else load_zoo)(self.arch)

    def _check(self, stages: dict, spec: NetworkSpec, source: str) -> None:
        """Refuses what is not there, and networks that stages of one width do not make."""
        numbers = list(stages)
        if wrong := next(_problems(stages, spec), None):
            raise SpecError(f'{source}: arch: there is no space around {spec.name}: {wrong}')
        layers = {
            name: layer
            for number, chain in stages.items()
            for name, layer in zip(_names(number, chain), chain, strict=True)
        }
        for field in ('fixed_stages', 'out_indices'):
            for number in getattr(self, field) or ():
                if number not in stages:
                    raise SpecError(
                        f'{source}: {field}: found {number}, expected stages of {spec.name}, '
                        f'1 to {len(numbers)}'
                    )
        for name in self.fused if isinstance(self.fused, tuple) else ():
            if name not in layers or layers[name].op != 'irb':
                unfused = [other for other, layer in layers.items() if layer.op == 'irb']
                raise SpecError(
                    f'{source}: fused: found {shown(name)}, expected inverted residuals of '
                    f'{spec.name}, which are {", ".join(unfused) or "none"}'
                )
        for name in self.skip if isinstance(self.skip, tuple) else ():
            if name not in layers or name.endswith('.layer1'):
                raise SpecError(
                    f'{source}: skip: found {shown(name)}, expected layers behind the first of a '
                    'stage, such as "stage2.layer2"'
                )

    def _stage(self, chain: list[LayerSpec]) -> dict[str, Any]:
        number = chain[0].stage
        layers = []
        for name, layer in zip(_names(number, chain), chain, strict=True):
            fixed = number in self.fixed_stages
            skip, fused = (
                name in chosen if isinstance(chosen, tuple) else chosen
                for chosen in (self.skip, self.fused)
            )
            kernels = [layer.kernel]
            if layer.op in INVERTED and layer.kernel > 1 and not fixed:
                kernels += [kernel for kernel in self.kernels if kernel != layer.kernel]
            ops = [layer.op]
            if fused and layer.op == 'irb' and not fixed:
                ops.append('fused_irb')
            blocks = [
                self._block(layer, kernel, fixed) | dict(op=op)
                for op in ops
                for kernel in sorted(kernels)
            ]
            layers.append(dict(candidates=blocks, skip=skip and not fixed))
        return dict(
            width=chain[0].out_channels, stride=chain[0].stride, depth=len(chain), layers=layers
        )

    def _block(self, layer: LayerSpec, kernel: int, fixed: bool) -> dict[str, Any]:
        left_out = {'in_channels', 'out_channels', 'stride', 'stage', 'kernel', 'hidden'}
        block = layer.model_dump(exclude=left_out, exclude_defaults=True) | dict(kernel=kernel)
        if layer.padding == layer.kernel // 2:  # the usual one, which depends on the kernel
            del block['padding']
        if layer.op in INVERTED:
            own, step = layer.hidden, self.granularity
            grown = 0 if fixed else int((self.largest - 1) * own) // step * step
            block |= dict(hidden=own + grown)
            if not fixed:
                block |= dict(step=step)
        return block


def _problems(stages: Mapping[int, list[LayerSpec]], spec: NetworkSpec) -> Iterator[str]:
    """What keeps a network from having a space around it."""
    numbers = list(stages)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f'its stages are {numbers}, expected 1 to {len(numbers)}'
    if len(spec.stem) > 1 or spec.stem[0].op != 'conv' or spec.stem[0].has_residual:
        yield 'its stem is not one convolution, which is all that a space has'
    for number, chain in {0: list(spec.stem), **stages}.items():
        for name, layer in zip(_names(number, chain), chain, strict=True):
            if layer.stride != 1 and layer is not chain[0]:
                yield f'{name} has stride 2, which in a space only the first of a stage may'
            if layer.out_channels != chain[0].out_channels:
                yield (
                    f'{name} has {layer.out_channels} output channels where its stage began '
                    f'with {chain[0].out_channels}, and in a space a stage has one width'
                )
            if isinstance(layer.block_key(1, 1).padding, int):
                yield f'{name} has padding {layer.padding}, which a space cannot say'


def _names(stage: int, chain: list[LayerSpec]) -> list[str]:
    if not stage:
        return [f'stem[{index}]' for index in range(len(chain))]
    return [f'stage{stage}.layer{index}' for index in range(1, len(chain) + 1)]
