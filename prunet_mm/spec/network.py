"""A fixed network as data: what the zoo holds, a search ends in and a backbone is built from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import SpecError
from prunet_mm.spec import summary
from prunet_mm.spec.kernels import BlockKey
from prunet_mm.spec.layer import LayerSpec, TailSpec
from prunet_mm.spec.preprocessing import Preprocessing
from prunet_mm.spec.summary import Row
from prunet_mm.spec.validation import (
    Epsilon,
    JsonObject,
    Many,
    Name,
    PositiveInt,
    Spec,
    check_stride,
    problem,
    shown,
)

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 1


class NetworkSpec(Spec):
    """A network: stem, layers in stages, and for a classifier a tail.

    Attributes:
        resolution: Rows and columns of the input image in pixels.
        in_channels: Channels of the input image.
        stem: Layers of stage 0.
        layers: All other layers; their stages never decrease.
        norm_eps: What BatchNorms add to the variance.
        tail: What ends a classifier; None for a bare backbone.
        preprocessing: How images become what the weights at hand were trained on; None where
            there are none, or nobody said.
        provenance: Where the network is from, as free JSON, for instance ``budget_ms``.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    resolution: PositiveInt
    in_channels: PositiveInt = 3
    stem: Many[LayerSpec]
    layers: Many[LayerSpec]
    tail: TailSpec | None = None
    norm_eps: Epsilon = 1e-3
    preprocessing: Preprocessing | None = None
    provenance: Annotated[JsonObject, Field(default_factory=dict)]

    def __hash__(self) -> int:
        """Hashes all but the provenance, which is a dict."""
        return hash((self.name, self.resolution, self.stem, self.layers, self.tail))

    @model_validator(mode='after')
    def _fits_together(self) -> NetworkSpec:
        channels, size, stage = self.in_channels, self.resolution, 0
        for at, layer in self._located():
            _check_stage(at, layer.stage, stage)
            if layer.in_channels != channels:
                raise problem(
                    (*at, 'in_channels'),
                    f'found {layer.in_channels}, expected {channels}, the channels in front of it',
                )
            check_stride(at, layer.stride, size)
            channels, size, stage = layer.out_channels, _shrunk(at, layer, size), layer.stage
        for field in ('mean', 'std') if self.preprocessing else ():
            if (found := len(getattr(self.preprocessing, field))) != self.in_channels:
                text = f'found {found} values, expected {self.in_channels}, one per channel'
                raise problem(('preprocessing', field), text)
        return self

    def _located(self) -> list[tuple[tuple, LayerSpec]]:
        return [
            ((part, index), layer)
            for part in ('stem', 'layers')
            for index, layer in enumerate(getattr(self, part))
        ]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = 'config') -> NetworkSpec:
        """Builds a network from nested dicts and lists; see :meth:`Spec.from_dict`."""
        # First, since a file of another version may well have other fields.
        version = data.get('schema_version', 1) if isinstance(data, Mapping) else 1
        if type(version) is not int or version != SCHEMA_VERSION:
            raise SpecError(
                f'{source}: schema_version: found {shown(version)}, '
                f'expected {SCHEMA_VERSION}, the only one that this prunet_mm knows'
            )
        return super().from_dict(data, source)

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`Spec.to_dict`; the version of the format is always there."""
        return {'schema_version': self.schema_version, **super().to_dict()}

    @classmethod
    def load(cls, path: str | os.PathLike) -> NetworkSpec:
        """Reads a network from a JSON file.

        Raises:
            SpecError: The file cannot be read, or what it holds is no network.
        """
        try:
            data = json.loads(Path(path).read_text('utf-8'))
        except OSError as error:
            raise SpecError(f'cannot read the network {path}: {error.strerror}') from error
        except (ValueError, RecursionError) as error:
            raise SpecError(f'{path}: not JSON, or cut off: {error}') from error
        if isinstance(data, dict) and 'schema_version' not in data:
            raise SpecError(f'{path}: schema_version: this field is missing, so this is no network')
        return cls.from_dict(data, str(path))

    @classmethod
    def from_timm(cls, model: str | nn.Module) -> NetworkSpec:
        """The network that timm's EfficientNet builder makes under a name, or has made.

        Args:
            model: The name, such as ``'tf_efficientnet_lite0'``, or the classifier itself.

        Raises:
            SpecError: timm is not installed or does not know the name, or a spec cannot express
                the network; names the module.
        """
        from prunet_mm.spec import timm

        fields = timm.read(model)
        return cls.from_dict(fields, source=fields['name'])

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file in one step; equal networks give equal bytes.

        Raises:
            PrunetError: The file cannot be written; what was there before is intact.
        """
        write_atomic(path, json.dumps(self.to_dict(), indent=2) + '\n')

    def feature_sizes(self) -> list[tuple[int, int]]:
        """Output (height, width) in pixels of every layer, the stem's first."""
        return [key.out_size for key in self.block_keys() if key.op != 'tail']

    def block_keys(self) -> list[BlockKey]:
        """The network's blocks in order: stem, layers, tail."""
        keys, size = [], (self.resolution, self.resolution)
        for _, layer in self._located():
            keys.append(layer.block_key(*size))
            size = keys[-1].out_size
        if self.tail:
            keys.append(self.tail.block_key(self.layers[-1].out_channels, *size))
        return keys

    def params(self) -> int:
        """Learned parameters, those of BN included."""
        return sum(key.params() for key in self.block_keys())

    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions and linear layers."""
        return sum(key.macs() for key in self.block_keys())

    @property
    def out_channels(self) -> dict[int, int]:
        """Channels behind each stage, the stem not included."""
        return {layer.stage: layer.out_channels for layer in self.layers}

    @property
    def out_strides(self) -> dict[int, int]:
        """Stride of each stage's output against the image, the stem not included."""
        strides, stride = {}, 1
        for _, layer in self._located():
            stride *= layer.stride
            strides[layer.stage] = stride
        return {stage: strides[stage] for stage in self.out_channels}

    def rows(self) -> list[Row]:
        """One row per block with its cost, for tables and plots."""
        return summary.rows(self)

    def describe(self) -> str:
        """The network as a text table, one line per block, for the screen."""
        return summary.table(self)


def _shrunk(at: tuple, layer: LayerSpec, size: int) -> int:
    """Rows of the layer's output on ``size`` rows."""
    rows = layer.block_key(size, size).out_size[0]
    if rows < 1:
        text = (
            f'found {layer.padding} with kernel {layer.kernel} on a feature map of {size} x {size} '
            f'px, expected at least {(layer.kernel - size + 1) // 2}'
        )
        raise problem((*at, 'padding'), text)
    return rows


def _check_stage(at: tuple, found: int, before: int) -> None:
    if at[0] == 'stem':
        right, expected = found == 0, '0, since it is part of the stem'
    elif before == 0:
        right, expected = found >= 1, '1 or more, since 0 is the stem'
    else:
        right, expected = found >= before, f'{before} or more, since stages never decrease'
    if not right:
        raise problem((*at, 'stage'), f'found {found}, expected {expected}')
