"""One layer of a network as data, and the tail that ends a classifier."""

from __future__ import annotations

from pydantic import model_validator

from prunet_mm.spec.kernels import INVERTED, SEPARABLE, BlockKey, Kernel
from prunet_mm.spec.validation import (
    Act,
    Flag,
    Gate,
    HiddenWidth,
    NonNegativeInt,
    OddInt,
    Op,
    Padding,
    PositiveInt,
    Probability,
    Spec,
    Stride,
    check_shortcut,
    problem,
    shown,
)


class LayerSpec(Spec):
    """A block: convolution, separable convolution, (fused) inverted residual or shortcut.

    - ``conv``: k x k conv (stride), BN, act; no residual unless said.
    - ``ds``: depthwise k x k conv (stride), BN, act; [SE]; 1x1 conv, BN, [act].
    - ``irb``: 1x1 conv, BN, act; depthwise k x k conv (stride), BN, act; [SE]; 1x1 conv, BN, [act].
    - ``fused_irb``: k x k conv (stride), BN, act; [SE]; 1x1 conv, BN, [act].
    - ``shortcut``: 1x1 conv (stride), BN; no residual. What stands for an identity where width or
      stride change.

    Convolutions have no bias, except those of SE (global mean, 1x1 conv to ``se`` channels, its
    act, 1x1 conv back, gate).

    Attributes:
        kernel: Rows and columns of the k x k convolution; 1 for a shortcut.
        hidden: Hidden width in channels; positive for an inverted residual, 0 for all others.
        act: The stage's activation; a shortcut has none, whatever is said here.
        se: Squeeze channels of squeeze-and-excitation, 0 for none, as in a conv or shortcut.
        stage: 0 for the stem, 1 and up for the stages.
        padding: Pixels that the k x k convolution adds on each side; None for ``kernel // 2``;
            'same' for as many as an output of ceil(size / stride) takes, an odd one at the right
            and at the bottom, as TensorFlow does.
        residual: Whether the block adds its input to its output; None for the rule: a ``ds`` or
            inverted residual block of stride 1 with as many channels in as out does.
        act_last: Whether the activation follows the projection, too.
        se_act: Activation inside SE; None for ``act``.
        se_gate: What makes SE's factors.
    """

    op: Op
    in_channels: PositiveInt
    out_channels: PositiveInt
    kernel: OddInt
    stride: Stride
    hidden: HiddenWidth = 0
    act: Act
    se: NonNegativeInt = 0
    stage: NonNegativeInt
    padding: Padding | None = None
    residual: Flag | None = None
    act_last: Flag = False
    se_act: Act | None = None
    se_gate: Gate = 'sigmoid'

    @model_validator(mode='after')
    def _fits_op(self) -> LayerSpec:
        if self.op == 'shortcut':
            check_shortcut(self.kernel)
        for field, ops in (('hidden', INVERTED), ('se', SEPARABLE), ('act_last', SEPARABLE)):
            found, none = getattr(self, field), type(self).model_fields[field].default
            if found and self.op not in ops:
                raise problem(
                    (field,), f'found {shown(found)}, expected {none}, since a {self.op} has none'
                )
        for field, none in (('se_act', None), ('se_gate', 'sigmoid')):
            if (found := getattr(self, field)) != none and not self.se:
                text = f'found {shown(found)}, expected {shown(none)}, since se is 0'
                raise problem((field,), text)
        if self.op in INVERTED and not self.hidden:
            raise problem(
                ('hidden',), f'found 0, expected a positive integer, since op is {shown(self.op)}'
            )
        if self.has_residual and (why := self._no_sum()):
            raise problem(('residual',), f'found {shown(self.residual)}, expected False, {why}')
        return self

    def _no_sum(self) -> str | None:
        """Why input and output cannot be added; None where they can."""
        if self.op == 'shortcut':
            return f'since a {self.op} has none'
        if self.in_channels != self.out_channels:
            return f'since {self.in_channels} channels go in and {self.out_channels} come out'
        if self.stride != 1:
            return f'since stride {self.stride} makes the map smaller'
        if self.padding not in (None, 'same', self.kernel // 2):
            return f"since padding {self.padding} with kernel {self.kernel} changes the map's size"
        return None

    @property
    def has_residual(self) -> bool:
        """Whether the block adds its input to its output."""
        return self.block_key(1, 1).has_residual

    def block_key(self, height: int, width: int) -> BlockKey:
        """The block on an input of ``height`` x ``width`` pixels, as latency tables name it."""
        # What is the default anyway stays unsaid: one block has one key.
        usual = self.kernel // 2, 'same' if self.stride == 1 else None
        key = BlockKey(
            self.op,
            self.in_channels,
            self.out_channels,
            self.hidden,
            self.kernel,
            self.stride,
            self.act,
            self.se,
            height,
            width,
            None if self.padding in usual else self.padding,
            act_last=self.act_last,
            se_act=None if self.se_act == self.act else self.se_act,
            se_gate=self.se_gate,
        )
        by_rule = self.residual in (None, key.has_residual)
        return key if by_rule else key._replace(residual=self.residual)

    def kernels(self, height: int, width: int) -> tuple[Kernel, ...]:
        """What the block runs on an input of ``height`` x ``width`` pixels."""
        return self.block_key(height, width).kernels()

    def params(self) -> int:
        """Learned parameters, those of BN included."""
        return self.block_key(1, 1).params()

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of one image of ``height`` x ``width`` input pixels."""
        return self.block_key(height, width).macs()


class TailSpec(Spec):
    """From features to classes: [1x1 conv, BN, act], global average pool, [1x1 conv, act], linear.

    The conv behind the pool has no BN. Dropout sits in front of the linear layer.

    Attributes:
        channels: Width of the 1x1 conv in front of the pool, 0 for none.
        features: Width of the 1x1 conv behind it, 0 for none.
        features_bias: Whether that conv has a bias.
        dropout: Probability with which a feature is dropped in training.
    """

    channels: NonNegativeInt = 0
    features: NonNegativeInt = 0
    features_bias: Flag = False
    act: Act = 'relu'
    dropout: Probability = 0.0
    num_classes: PositiveInt

    @model_validator(mode='after')
    def _fits_together(self) -> TailSpec:
        if self.features_bias and not self.features:
            raise problem(('features_bias',), 'found True, expected False, since features is 0')
        return self

    def out_channels(self, in_channels: int) -> int:
        """What the linear layer gets, of ``in_channels`` in front of the tail."""
        return self.features or self.channels or in_channels

    def block_key(self, in_channels: int, height: int, width: int) -> BlockKey:
        """The tail on an input of ``height`` x ``width`` pixels, as latency tables name it."""
        return BlockKey(
            'tail',
            in_channels,
            self.num_classes,
            self.channels,
            1,
            1,
            self.act,
            0,
            height,
            width,
            features=self.features,
            features_bias=self.features_bias,
        )
