"""Networks of timm's EfficientNet builder as specs, read from the modules that it has built.

What a spec cannot say is refused by the name of the module, so nothing is left out in silence:
every child of every module is either read here or does nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from prunet_mm.errors import SpecError, one_line
from prunet_mm.spec.kernels import INVERTED, SEPARABLE

if TYPE_CHECKING:
    from torch import nn

    from prunet_mm.spec.network import NetworkSpec


class Kind(NamedTuple):
    """A block of timm: the op that it is, and its parts in the order in which data passes them.

    Attributes:
        parts: What timm calls each convolution, norm and squeeze-and-excitation, and what the
            blocks in `prunet_mm.models.blocks` do.
        spatial: The part that is the k x k convolution.
    """

    op: str
    parts: dict[str, str]
    spatial: str


_END = dict(se='se', conv_pwl='project.conv')
KINDS = dict(
    ConvBnAct=Kind('conv', dict(conv='conv.conv', bn1='conv.bn'), 'conv'),
    DepthwiseSeparableConv=Kind(
        'ds',
        dict(conv_dw='depthwise.conv', bn1='depthwise.bn', se='se')
        | dict(conv_pw='project.conv', bn2='project.bn'),
        'conv_dw',
    ),
    InvertedResidual=Kind(
        'irb',
        dict(conv_pw='expand.conv', bn1='expand.bn', conv_dw='depthwise.conv', bn2='depthwise.bn')
        | dict(**_END, bn3='project.bn'),
        'conv_dw',
    ),
    EdgeResidual=Kind(
        'fused_irb',
        dict(conv_exp='expand.conv', bn1='expand.bn', **_END, bn2='project.bn'),
        'conv_exp',
    ),
)
SQUEEZE = dict(conv_reduce='reduce', conv_expand='expand')
NETWORKS = ('EfficientNet', 'MobileNetV3')
ACTS = dict(ReLU='relu', ReLU6='relu6', SiLU='swish', Hardswish='hard_swish', Identity=None)
GATES = dict(Sigmoid='sigmoid', Hardsigmoid='hard_sigmoid')
IDLE = ('Identity', 'DropPath')  # in a deployed network


def build(name: str, pretrained: bool = False) -> nn.Module:
    """timm's network of this name: with its released weights, or without any, as shapes alone.

    Raises:
        SpecError: There is no timm, no such network in it, or its weights cannot be had.
    """
    try:
        import timm
        import torch
    except ImportError as error:
        raise SpecError(
            f"{name}: networks of timm need timm: pip install 'prunet_mm[pretrained]' ({error})"
        ) from error
    if not timm.is_model(name):
        near = get_close_matches(name.partition('.')[0], timm.list_models(), n=3)
        hint = f'; near ones are {", ".join(near)}' if near else ''
        raise SpecError(f'{name}: timm {timm.__version__} has no network of this name{hint}')
    try:
        with torch.device('cpu' if pretrained else 'meta'):
            return timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # whatever a download or a network of another kind may raise
        what = 'give its released weights' if pretrained else 'build it'
        hint = '; a file of them may be named with --weights' if pretrained else ''
        raise SpecError(f'{name}: timm cannot {what}: {one_line(error)[:200]}{hint}') from error


def read(model: nn.Module | str) -> dict[str, Any]:
    """The fields of a `NetworkSpec`, read from a classifier of timm.

    Args:
        model: The classifier, or the name that timm has for it.

    Raises:
        SpecError: A spec cannot express it; names the module.
    """
    model = build(model) if isinstance(model, str) else model
    return _Reader(model).fields()


def modules(spec: NetworkSpec) -> dict[str, str]:
    """What our classifier calls each module of timm's that has tensors, in order.

    Args:
        spec: A `NetworkSpec` with a tail, as it was read from timm.
    """
    names = dict(conv_stem='backbone.stem.0.conv.conv', bn1='backbone.stem.0.conv.bn')
    kinds = {kind.op: kind for kind in KINDS.values()}
    index: dict[int, int] = {}
    for layer in spec.layers:
        number = index[layer.stage] = index.get(layer.stage, -1) + 1
        theirs = f'blocks.{layer.stage - 1}.{number}'
        ours = f'backbone.stage{layer.stage}.{number}'
        for part, name in kinds[layer.op].parts.items():
            if part != 'se':
                names[f'{theirs}.{part}'] = f'{ours}.{name}'
            elif layer.se:
                names |= {f'{theirs}.se.{a}': f'{ours}.se.{b}' for a, b in SQUEEZE.items()}
    if spec.tail.channels:
        names |= dict(conv_head='neck.conv.conv', bn2='neck.conv.bn')
    if spec.tail.features:
        names['conv_head'] = 'neck.features.conv'
    return names | dict(classifier='head.fc')


class _Reader:
    """Reads a network module by module; what is unknown becomes a SpecError with its path."""

    def __init__(self, model: nn.Module) -> None:
        self.cfg = dict(getattr(model, 'pretrained_cfg', None) or {})
        self.name = self.cfg.get('architecture') or type(model).__name__
        self.model = model
        self.eps: set[float] = set()

    def fields(self) -> dict[str, Any]:
        kind, home = type(self.model).__name__, type(self.model).__module__
        if kind not in NETWORKS or not home.startswith('timm.models.'):
            raise SpecError(
                f'{self.name} is a {kind}, which a NetworkSpec cannot express: of timm, it can '
                f'express what the EfficientNet builder makes ({" and ".join(NETWORKS)})'
            )
        stem = self._stem()
        layers = [
            self._block(f'blocks.{stage}.{index}', block, stage + 1)
            for stage, blocks in enumerate(self.model.blocks)
            for index, block in enumerate(blocks)
        ]
        tail = self._tail()
        if len(self.eps) > 1:
            raise SpecError(
                f'{self.name}: its norms have several eps, {sorted(self.eps)}, and a NetworkSpec '
                'has one'
            )
        known = {'conv_stem', 'bn1', 'blocks', 'conv_head', 'bn2', 'norm_head', 'act2'}
        self._rest('', self.model, known | {'global_pool', 'flatten', 'classifier'})
        return dict(
            name=self.name,
            in_channels=stem['in_channels'],
            stem=[stem],
            layers=layers,
            tail=tail,
            norm_eps=self.eps.pop(),
            **self._images(),
        )

    # The parts of a network

    def _stem(self) -> dict[str, Any]:
        conv = self.model.conv_stem
        fields = self._spatial('conv_stem', conv, groups=1)
        act = self._norm('bn1', self.model.bn1)
        return dict(
            op='conv',
            in_channels=conv.in_channels,
            out_channels=conv.out_channels,
            act=self._some('bn1.act', self.model.bn1.act, act),
            stage=0,
            **fields,
        )

    def _block(self, path: str, block: nn.Module, stage: int) -> dict[str, Any]:
        kind = KINDS.get(type(block).__name__)
        if kind is None or not type(block).__module__.startswith('timm.'):
            raise self._refusal(path, block)
        convs, norms = ([p for p in kind.parts if p.startswith(s)] for s in ('conv', 'bn'))
        for part in convs:
            if part != kind.spatial:
                self._pointwise(f'{path}.{part}', getattr(block, part))
        spatial, first, last = (getattr(block, p) for p in (kind.spatial, convs[0], convs[-1]))
        depthwise = kind.op in ('ds', 'irb')
        fields = dict(
            op=kind.op,
            in_channels=first.in_channels,
            out_channels=last.out_channels,
            hidden=spatial.out_channels if kind.op in INVERTED else 0,
            stage=stage,
            **self._spatial(
                f'{path}.{kind.spatial}', spatial, spatial.out_channels if depthwise else 1
            ),
        )
        acts = {part: self._norm(f'{path}.{part}', getattr(block, part)) for part in norms}
        act = self._some(f'{path}.bn1.act', block.bn1.act, acts['bn1'])
        for part, other in acts.items():
            if other != act and (part != norms[-1] or other is not None):
                raise self._refusal(f'{path}.{part}.act', getattr(block, part).act)
        if kind.op != 'conv' and acts[norms[-1]]:
            fields['act_last'] = True
        equal = fields['stride'] == 1 and first.in_channels == last.out_channels
        if block.has_skip != (kind.op in SEPARABLE and equal):
            fields['residual'] = bool(block.has_skip)
        if 'se' in kind.parts:
            fields |= self._squeeze(f'{path}.se', block.se, act)
        self._rest(path, block, kind.parts)
        return dict(fields, act=act)

    def _squeeze(self, path: str, se: nn.Module, act: str) -> dict[str, Any]:
        if type(se).__name__ in IDLE:
            return {}
        known = {*SQUEEZE, 'act1', 'gate'}
        if type(se).__name__ != 'SqueezeExcite' or not known <= dict(se.named_children()).keys():
            raise self._refusal(path, se)
        for part in SQUEEZE:
            self._pointwise(f'{path}.{part}', getattr(se, part), bias=True)
        gate = GATES.get(type(se.gate).__name__)
        if gate is None:
            raise self._refusal(f'{path}.gate', se.gate)
        inner = self._some(f'{path}.act1', se.act1, self._act(f'{path}.act1', se.act1))
        self._rest(path, se, known)
        fields = dict(se=se.conv_reduce.out_channels, se_gate=gate)
        return fields if inner == act else dict(fields, se_act=inner)

    def _tail(self) -> dict[str, Any]:
        model = self.model
        if type(model.classifier).__name__ != 'Linear':
            raise SpecError(f'{self.name} has no classifier: make it with num_classes above 0')
        if getattr(model.global_pool, 'pool_type', None) not in ('avg', 'fast', 'fastavg'):
            raise self._refusal('global_pool', model.global_pool)
        if model.classifier.bias is None:
            raise self._refusal('classifier', model.classifier)
        tail = dict(dropout=float(model.drop_rate), num_classes=model.classifier.out_features)
        if type(model.conv_head).__name__ in IDLE:
            return tail
        width = model.conv_head.out_channels
        if type(model).__name__ == 'EfficientNet':
            self._pointwise('conv_head', model.conv_head)
            act, at = self._norm('bn2', model.bn2), ('bn2.act', model.bn2.act)
            tail |= dict(channels=width)
        else:
            bias = model.conv_head.bias is not None
            self._pointwise('conv_head', model.conv_head, bias=bias)
            if type(model.norm_head).__name__ not in IDLE:
                raise self._refusal('norm_head', model.norm_head)
            act, at = self._act('act2', model.act2), ('act2', model.act2)
            tail |= dict(features=width, features_bias=bias)
        return dict(tail, act=self._some(*at, act))

    def _images(self) -> dict[str, Any]:
        """Resolution, preprocessing and provenance."""
        import timm
        from timm.data import resolve_data_config

        fields = dict(resolution=224, provenance=dict(timm=timm.__version__, model=self.name))
        if not self.cfg:
            return fields
        found = resolve_data_config(pretrained_cfg=self.cfg)
        _, height, width = found['input_size']
        tag = self.cfg.get('tag')
        fields['provenance']['model'] += f'.{tag}' if tag else ''
        if height != width:
            raise SpecError(f'{self.name}: its images have {height} x {width} px, expected squares')
        if found['crop_mode'] not in ('center', 'squash'):
            raise SpecError(
                f'{self.name}: its images are prepared with crop_mode {found["crop_mode"]!r}, '
                'expected center or squash'
            )
        if len(found['mean']) != self.model.conv_stem.in_channels:  # made for other images
            return dict(fields, resolution=height)
        preprocessing = dict(
            mean=[round(255 * value, 6) for value in found['mean']],
            std=[round(255 * value, 6) for value in found['std']],
            crop=float(found['crop_pct']),
            squash=found['crop_mode'] == 'squash',
            interpolation=found['interpolation'],
        )
        return dict(fields, resolution=height, preprocessing=preprocessing)

    # The modules that they are made of

    def _spatial(self, path: str, conv: nn.Module, groups: int) -> dict[str, Any]:
        """Kernel, stride and padding of a k x k convolution."""
        self._convolution(path, conv, groups, bias=False)
        (kernel, *_), (stride, *_) = conv.kernel_size, conv.stride
        padding = 'same' if type(conv).__name__ == 'Conv2dSame' else conv.padding[0]
        fields = dict(kernel=kernel, stride=stride)
        return fields if padding == kernel // 2 else dict(fields, padding=padding)

    def _pointwise(self, path: str, conv: nn.Module, bias: bool = False) -> None:
        self._convolution(path, conv, 1, bias)
        if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.padding != (0, 0):
            raise self._refusal(path, conv)

    def _convolution(self, path: str, conv: nn.Module, groups: int, bias: bool) -> None:
        """Refuses what is no plain convolution: other kinds, dilation, groups, a bias."""
        if type(conv).__name__ not in ('Conv2d', 'Conv2dSame'):
            raise self._refusal(path, conv)
        square = len({*conv.kernel_size}) == len({*conv.stride}) == len({*conv.padding}) == 1
        plain = conv.dilation == (1, 1) and conv.padding_mode == 'zeros'
        depthwise = groups == 1 or groups == conv.in_channels == conv.out_channels
        if not (square and plain and depthwise and conv.groups == groups):
            raise self._refusal(path, conv)
        if (conv.bias is not None) != bias:
            raise self._refusal(path, conv)

    def _norm(self, path: str, norm: nn.Module) -> str | None:
        """Its activation."""
        if type(norm).__name__ != 'BatchNormAct2d' or not norm.affine:
            raise self._refusal(path, norm)
        self.eps.add(norm.eps)
        self._rest(path, norm, {'act'})
        return self._act(f'{path}.act', norm.act)

    def _act(self, path: str, act: nn.Module) -> str | None:
        if type(act).__name__ not in ACTS:
            raise self._refusal(path, act)
        return ACTS[type(act).__name__]

    def _some(self, path: str, module: nn.Module, act: str | None) -> str:
        if act is None:
            raise self._refusal(path, module)
        return act

    def _rest(self, path: str, module: nn.Module, known: Collection[str]) -> None:
        """Refuses a child that is not ``known`` and does something."""
        for name, child in module.named_children():
            if name not in known and type(child).__name__ not in IDLE:
                raise self._refusal(f'{path}.{name}'.lstrip('.'), child)

    def _refusal(self, path: str, module: nn.Module) -> SpecError:
        what = ' '.join(f'{type(module).__name__}({module.extra_repr()})'.split())
        what = what.removesuffix('()')
        return SpecError(f'{self.name}: {path} is a {what}, which a NetworkSpec cannot express')
