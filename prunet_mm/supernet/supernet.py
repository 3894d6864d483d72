"""The SuperNet: every network of a search space at once, as a backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from prunet_mm.errors import CheckpointError, ConfigError
from prunet_mm.models.blocks import build_block
from prunet_mm.models.prunet import BATCH_NORM, INIT
from prunet_mm.models.recompute import run
from prunet_mm.registry import register_model
from prunet_mm.spec import NetworkSpec, SearchSpace
from prunet_mm.supernet.latency import LatencyMixin
from prunet_mm.supernet.paths import PathMixin
from prunet_mm.supernet.prunode import Prunode
from prunet_mm.supernet.rules import build_rule
from prunet_mm.supernet.stochastic_layer import StochasticLayer
from prunet_mm.supernet.structure import read_structure, require_fit, write_structure

SAMPLINGS = ('hard', 'softmax', 'gumbel')


@register_model
class SuperNet(LatencyMixin, PathMixin, BaseModule):
    """All networks of a search space on shared weights, pruned while it trains.

    Modules: ``stem``, then ``stage1``, ``stage2``, ... each holding ``layer1``, ``layer2``, ...
    What has been pruned is in the state dict, as JSON in the buffer ``structure``: loading a
    checkpoint into a new SuperNet of the same space removes what the checkpoint lacks.

    Args:
        space: A search space as plain data; see :class:`prunet_mm.spec.SearchSpace`.
        rule: Walking rule of the Prunodes, ``dict(type='width' | 'logits', initial=1.0, ...)``.
        sampling: ``'hard'``: a layer is one of its choices at a time. For comparison, blends of all
            that are left: ``'softmax'`` of the logits, or ``'gumbel'`` noise on top.
        out_indices: Stages whose maps are returned, counted from 1, the last one among them;
            default: that one alone.
        norm_cfg: Config of the norm layers, type BN; its ``eps`` is the space's.
        with_cp: Recompute each layer's activations in the backward pass to save memory.
        init_cfg: Weight initialisation; default: Kaiming for convolutions.

    Raises:
        SpecError: The space is impossible.
        ConfigError: An option is.
    """

    def __init__(
        self,
        space: dict,
        rule: dict | None = None,
        sampling: str = 'hard',
        out_indices: Sequence[int] | None = None,
        norm_cfg: dict = BATCH_NORM,
        with_cp: bool = False,
        init_cfg: dict | list | None = INIT,
    ) -> None:
        super().__init__(init_cfg)
        self.space = SearchSpace.from_dict(space)
        self.rule = dict(rule or dict(type='width'))
        self.with_cp, self.sampling = with_cp, sampling
        build_rule((1, 2), self.rule)  # refuses a bad one, even if no layer of the space needs it
        if sampling not in SAMPLINGS:
            raise ConfigError(
                f'backbone.sampling: found {sampling!r}, expected one of {", ".join(SAMPLINGS)}.'
            )
        if norm_cfg.get('type') not in ('BN', 'BN2d'):
            raise ConfigError(
                f'backbone.norm_cfg: found type {norm_cfg.get("type")!r}; a SuperNet slices its '
                "norms by channel, which works for 'BN' only."
            )
        norm_cfg = {**BATCH_NORM, 'eps': self.space.norm_eps, **norm_cfg}
        if norm_cfg['eps'] != self.space.norm_eps:
            raise ConfigError(
                f'backbone.norm_cfg: found eps {norm_cfg["eps"]}, expected {self.space.norm_eps}, '
                'which the networks of a search have.'
            )
        last = len(self.space.stages)
        self.out_indices = tuple(out_indices or (last,))
        if not all(1 <= stage <= last for stage in self.out_indices):
            raise ConfigError(
                f'backbone.out_indices: found {self.out_indices}, expected stages from 1 to {last}.'
            )
        if last not in self.out_indices:
            # They would take latency from the others and never get a gradient.
            raise ConfigError(
                f'backbone.out_indices: found {self.out_indices}, but the space goes on to stage '
                f'{last}: leave out of space.stages what no map comes from.'
            )
        self.stem = nn.Sequential(
            *(build_block(layer, norm_cfg) for layer in self.space.stem_layers)
        )
        for position in self.space.positions():
            stage_name, layer_name = position.name.split('.')
            if not hasattr(self, stage_name):
                self.add_module(stage_name, nn.ModuleDict())
            layer = StochasticLayer(position, norm_cfg, self.rule)
            layer.sampling = sampling
            getattr(self, stage_name)[layer_name] = layer
        self.importance = None  # what a search is to sort hidden channels by before its first step
        self.imitation = 0  # and steps in which candidates then learn to imitate the layers
        self.settling: dict = {}  # the decision that is under way; see lean()
        self.walking = False  # whether widths are searched; the Prunode hook turns it on
        # A buffer, so that a network derived from a checkpoint is the one that the search derives.
        self.register_buffer('temperature', torch.ones((), dtype=torch.float64))
        self.register_buffer('structure', torch.zeros(0, dtype=torch.uint8))
        self._write_structure()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) to the feature maps of the stages in ``out_indices``."""
        x = self.stem(x)
        outs = []
        for stage in range(1, len(self.space.stages) + 1):
            for layer in getattr(self, f'stage{stage}').values():
                x = run(layer, x, self.with_cp, layer.path)
            if stage in self.out_indices:
                outs.append(x)
        return tuple(outs)

    # What it is made of

    def layers(self) -> dict[str, StochasticLayer]:
        """Return the layers that are alive, by name (``'stage2.layer1'``), input to output."""
        return {
            f'stage{stage}.{name}': layer
            for stage in range(1, len(self.space.stages) + 1)
            for name, layer in getattr(self, f'stage{stage}').items()
        }

    def prunodes(self) -> Iterator[Prunode]:
        """Yield the Prunodes that are alive."""
        return (module for module in self.modules() if isinstance(module, Prunode))

    def architecture_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the architecture parameters in three groups: widths, logits, keep."""
        layers = self.layers().values()
        return dict(
            widths=[p for prunode in self.prunodes() if prunode.rule for p in
                    prunode.rule.parameters()],
            logits=[p for layer in layers for p in layer.logits.values()],
            keep=[layer.keep for layer in layers if layer.keep is not None],
        )  # fmt: skip

    def searched_parameters(self) -> list[nn.Parameter]:
        """Return the architecture parameters that the search moves at present."""
        groups = self.architecture_parameters()
        searched = groups['widths'] if self.walking else []
        if self.sampling == 'hard':  # what is chosen follows from scores, not from a gradient
            return searched
        return searched + groups['logits'] + (groups['keep'] if self.skip_open else [])

    @property
    def widths_move(self) -> bool:
        """Whether hidden widths are searched, and there are any to search."""
        return self.walking and any(prunode.rule for prunode in self.prunodes())

    @property
    def skip_open(self) -> bool:
        """Whether layers compete with their skip."""
        return any(layer.skip_open for layer in self.layers().values())

    # What the tiers of pruning do to it

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of every softmax over architecture logits."""
        self.temperature.fill_(temperature)
        for layer in self.layers().values():
            layer.temperature = 1.0 if self.sampling == 'hard' else temperature
        for prunode in self.prunodes():
            if hasattr(prunode.rule, 'temperature'):
                prunode.rule.temperature = temperature

    def set_gap(self, fraction: float) -> list[nn.Parameter]:
        """Set the distance of every pair of widths, as a fraction of the widest.

        Returns:
            Parameters whose optimiser state is void.
        """
        rules = [prunode.rule for prunode in self.prunodes() if prunode.rule]
        return [p for rule in rules for p in rule.set_gap(fraction)]

    def walk(self) -> list[nn.Parameter]:
        """Let every Prunode walk; return parameters whose optimiser state is void."""
        return [p for prunode in self.prunodes() if prunode.rule for p in prunode.rule.walk()]

    def prune_below(
        self, threshold: float, budget_ms: float = math.inf
    ) -> list[tuple[str, str, float]]:
        """Remove candidates below a probability; return (layer, candidate, probability) each.

        Args:
            threshold: A probability among the candidates of a layer.
            budget_ms: Of these, only such as the cheapest network that is left does without.
        """
        removed = []
        for name, layer in self.layers().items():
            others_ms = self.reachable_ms() - min(layer.narrowest_ms().values())
            pruned = layer.prune_below(threshold, budget_ms - others_ms)
            removed += [(name, *pair) for pair in pruned]
        if removed:
            self._write_structure()
        return removed

    def open_skips(self) -> None:
        """From now on every skippable layer competes with its skip."""
        for layer in self.layers().values():
            layer.skip_open = not layer.stays
        self._write_structure()

    @torch.no_grad()
    def clamp_keeps(self, floor: float = 1e-3) -> None:
        """Keep every keep coefficient in (0, 1]."""
        for parameter in self.architecture_parameters()['keep']:
            parameter.clamp_(floor, 1.0)

    def remove_layer(self, name: str) -> None:
        """Remove a layer for good; its input passes on to the next."""
        stage, layer = name.split('.')
        if not self.layers()[name].position.skippable:
            raise ValueError(f'{name} changes width or stride and cannot be skipped.')
        del getattr(self, stage)[layer]
        self._write_structure()

    # What it becomes

    def choices(self) -> list[tuple[str, str, int, float]]:
        """Return per layer: its name, best candidate, that one's nearest grid width and E[w]."""
        rows = []
        for name, layer in self.layers().items():
            best = layer.best()
            block = layer.candidates[best]
            searched = isinstance(block, Prunode)
            width = block.nearest_width() if searched else 0
            rows.append((name, best, width, block.expected_width() if searched else 0.0))
        return rows

    def derive(self, widths: dict[str, int] | None = None, **fields) -> NetworkSpec:
        """Return the network of the best candidates at their nearest hidden widths.

        Args:
            widths: Hidden width by layer name, where another one than the nearest is wanted.
            fields: ``name`` and ``provenance`` of the network.
        """
        positions = {position.name: position for position in self.space.positions()}
        chosen = []
        for name, best, nearest, _ in self.choices():
            candidate = next(c for c in positions[name].candidates if c.name == best)
            chosen.append((positions[name], candidate, (widths or {}).get(name, nearest)))
        return self.space.network(chosen, **fields)

    # The structure in the state dict

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Tensor], prefix: str = '') -> SuperNet:
        """Build the SuperNet of a checkpoint, pruned as it is there and with its weights.

        Args:
            state_dict: The checkpoint's weights.
            prefix: Of the SuperNet's keys, such as ``'architecture.backbone.'``.

        Raises:
            CheckpointError: There is no SuperNet under this prefix.
        """
        own = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
        if 'structure' not in own:
            raise CheckpointError(f'The checkpoint holds no SuperNet under {prefix!r}.')
        data = read_structure(own['structure'])
        supernet = cls(data['space'], data['rule'], data.get('sampling', 'hard'))
        supernet.load_state_dict(own)
        return supernet

    def restore_structure(self, structure: Tensor) -> None:
        """Remove what a checkpoint lacks.

        Args:
            structure: The buffer ``structure`` of its state dict.

        Raises:
            CheckpointError: It does not fit.
        """
        data, layers = read_structure(structure), self.layers()
        here = {name: list(layer.candidates) for name, layer in layers.items()}
        require_fit(data, self.space.to_dict(), self.rule, here)
        for name, layer in layers.items():
            left = data['layers'].get(name)
            if left is None:
                self.remove_layer(name)
                continue
            for candidate in set(here[name]) - set(left):
                layer.remove(candidate)
            layer.skip_open = name in data['skip_open']
            layer.stays = name in data['stays']
        self.settling = data.get('settling', {})
        self._write_structure()

    def _write_structure(self) -> None:
        layers = self.layers().items()
        left = self.options().get(self.settling.get('layer'), ())
        if len(left) < 2 or self.settling['choice'] not in left:  # it is done, or overtaken
            self.settling = {}
        structure = write_structure(
            dict(
                space=self.space.to_dict(),
                rule=self.rule,
                sampling=self.sampling,
                layers={name: list(layer.candidates) for name, layer in layers},
                skip_open=[name for name, layer in layers if layer.skip_open],
                stays=[name for name, layer in layers if layer.stays],
                settling=self.settling,
            )
        )
        self.structure = structure.to(self.structure.device)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        if prefix + 'structure' in state_dict:
            self.restore_structure(state_dict[prefix + 'structure'])
            # Options of the rule may differ, and with them the length of the JSON.
            state_dict = {**state_dict, prefix + 'structure': self.structure}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.set_temperature(float(self.temperature))
