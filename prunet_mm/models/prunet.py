"""The backbone that a `NetworkSpec` describes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunet_mm.errors import CheckpointError, ConfigError, SpecError
from prunet_mm.models.blocks import build_block
from prunet_mm.models.deploy import fold_norms
from prunet_mm.models.fit import require_fit
from prunet_mm.models.recompute import run
from prunet_mm.registry import register_model
from prunet_mm.spec import NetworkSpec, load_zoo

BATCH_NORM = dict(type='BN', momentum=0.1)
INIT = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


@register_model
class PRUNet(BaseModule):
    """A network of stem and stages, built from data: the zoo's, a search's or one's own.

    The modules are ``stem`` and ``stage1``, ``stage2``, ...: sequences of the blocks in
    `prunet_mm.models.blocks`. The spec's tail is not part of the backbone; see `PRUNetTail`.

    Follows mmpretrain's backbones without being a subclass of theirs: importing that class loads
    every model there is and with them mmcv's compiled ops.

    Args:
        arch: The network: a name in the zoo, the path of a JSON file that a search or
            `NetworkSpec.save` wrote, its content as a dict, or a dict whose ``base`` is a name or a
            path and whose other fields replace the base's.
        out_indices: Stages whose outputs are returned, by their number in the spec (from 1);
            negative ones count from the last. The last alone by default. Stages behind the last of
            them are not built, and their weights in a checkpoint are left out.
        frozen_stages: Stem and stages up to this number do not train and keep their norms'
            statistics; 0 freezes the stem alone, -1 nothing.
        norm_cfg: Config of every norm layer; its ``eps`` is the spec's unless given here.
        norm_eval: Keep the statistics of all BatchNorms in training.
        drop_path_rate: Probability with which the last layer is skipped in a training step, where
            it has a residual; it rises linearly from 0 at the first layer (arXiv 1603.09382).
        with_cp: Recompute each block's activations in the backward pass to save memory.
        deploy: Build it as `switch_to_deploy` leaves it, for weights that were saved thereafter.
        init_cfg: How weights start: Kaiming for convolutions, one for norms by default.

    Attributes:
        spec: The network as data, all of its stages and the tail included.
        out_channels: Channels of each returned output.
        out_strides: Stride of each returned output against the image.

    Raises:
        SpecError: ``arch`` is no name in the zoo, or the file or dict is no network.
        ConfigError: A stage is not there, or the rate is no probability.
        CheckpointError: On loading weights of another network.
    """

    def __init__(
        self,
        arch: str | os.PathLike | Mapping,
        out_indices: int | Sequence[int] = (-1,),
        frozen_stages: int = -1,
        norm_cfg: dict = BATCH_NORM,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = INIT,
    ) -> None:
        super().__init__(init_cfg)
        self.spec = load_arch(arch)
        self.out_indices = _stages(self.spec, out_indices)
        # What no output depends on would cost time and get no gradients, which DDP refuses.
        self.stages = [stage for stage in self.spec.out_channels if stage <= self.out_indices[-1]]
        self.out_channels = tuple(self.spec.out_channels[stage] for stage in self.out_indices)
        self.out_strides = tuple(self.spec.out_strides[stage] for stage in self.out_indices)
        last = max(self.spec.out_channels)
        if not -1 <= frozen_stages <= last:
            raise ConfigError(
                f'PRUNet: frozen_stages is {frozen_stages}, but has to be -1 (none), 0 (the stem) '
                f'or a stage up to {last} of {self.spec.name!r}'
            )
        if not 0 <= drop_path_rate < 1:
            raise ConfigError(
                f'PRUNet: drop_path_rate is {drop_path_rate}, but has to be from 0 to below 1'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        norm_cfg = {'eps': self.spec.norm_eps, **norm_cfg}
        self.stem = nn.Sequential(*(build_block(layer, norm_cfg) for layer in self.spec.stem))
        last_index = max(1, len(self.spec.layers) - 1)
        for stage in self.stages:
            blocks = [
                build_block(layer, norm_cfg, drop_path_rate * index / last_index)
                for index, layer in enumerate(self.spec.layers)
                if layer.stage == stage
            ]
            self.add_module(f'stage{stage}', nn.Sequential(*blocks))
        for module in self._frozen():
            module.requires_grad_(False)
        if deploy:
            self.switch_to_deploy()

    def switch_to_deploy(self) -> None:
        """Folds every norm into the convolution in front of it, in place, for inference."""
        fold_norms(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps images (N, C, H, W) to one (N, out_channels, H / stride, W / stride) per output."""
        x, outs = self._run(self.stem, x), {}
        for stage in self.stages:
            x = outs[stage] = self._run(getattr(self, f'stage{stage}'), x)
        return tuple(outs[stage] for stage in self.out_indices)

    def _run(self, blocks: nn.Sequential, x: Tensor) -> Tensor:
        for block in blocks:
            x = run(block, x, self.with_cp)
        return x

    def train(self, mode: bool = True) -> PRUNet:
        """As `nn.Module.train`, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """As `BaseModule.init_weights`; names the file of weights that do not fit."""
        try:
            super().init_weights()
        except CheckpointError as error:
            configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
            paths = [str(config['checkpoint']) for config in configs if 'checkpoint' in config]
            if any(path in str(error) for path in paths):
                raise
            raise CheckpointError(f'{", ".join(paths)}: {error}') from error

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # mmengine would log what does not fit and train on with random weights.
        later = tuple(
            f'{prefix}stage{stage}.' for stage in self.spec.out_channels if stage not in self.stages
        )
        state_dict = {key: x for key, x in state_dict.items() if not key.startswith(later)}
        require_fit(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _frozen(self) -> list[nn.Module]:
        stages = [stage for stage in self.stages if stage <= self.frozen_stages]
        stem = [self.stem] if self.frozen_stages >= 0 else []
        return stem + [getattr(self, f'stage{stage}') for stage in stages]


def load_arch(arch: str | os.PathLike | Mapping) -> NetworkSpec:
    """The network that ``arch`` names: in the zoo, as a path to JSON, or as a dict.

    Raises:
        SpecError: The name is not in the zoo, or the file or dict is no network.
    """
    if isinstance(arch, Mapping):
        fields = dict(arch)
        base = load_arch(fields.pop('base')).to_dict() if 'base' in fields else {}
        return NetworkSpec.from_dict({**base, **fields}, source='PRUNet: arch')
    if not isinstance(arch, (str, os.PathLike)):
        raise SpecError(f'PRUNet: arch is {arch!r}, but has to be a name, a path or a dict')
    name = os.fspath(arch)
    if name.endswith('.json') or os.sep in name:
        return NetworkSpec.load(name)
    try:
        return load_zoo(name)
    except SpecError as error:
        raise SpecError(f'PRUNet: {error}; arch may also be the path of a .json file') from None


def _stages(spec: NetworkSpec, indices: int | Sequence[int]) -> tuple[int, ...]:
    """Stage numbers in ascending order, negative ones resolved."""
    stages = sorted(spec.out_channels)
    indices = [indices] if isinstance(indices, int) else list(indices)
    try:
        return tuple(sorted({stages[i] if i < 0 else stages[stages.index(i)] for i in indices}))
    except (IndexError, ValueError, TypeError):
        raise ConfigError(
            f'PRUNet: out_indices is {indices}, but the stages of {spec.name!r} are {stages} '
            f'(or -1 to -{len(stages)}, from the last)'
        ) from None
