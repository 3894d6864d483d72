"""One hook per tier of pruning, and what surrounds them."""

from prunet_mm.search.hooks.block_pruning_hook import BlockPruningHook
from prunet_mm.search.hooks.derive_hook import DeriveHook
from prunet_mm.search.hooks.harden_hook import HardenHook
from prunet_mm.search.hooks.history_hook import HistoryHook
from prunet_mm.search.hooks.layer_pruning_hook import LayerPruningHook
from prunet_mm.search.hooks.prunode_hook import PrunodeHook
from prunet_mm.search.hooks.state_hook import SearchStateHook
from prunet_mm.search.hooks.temperature_hook import TemperatureHook

__all__ = [
    'BlockPruningHook',
    'DeriveHook',
    'HardenHook',
    'HistoryHook',
    'LayerPruningHook',
    'PrunodeHook',
    'SearchStateHook',
    'TemperatureHook',
]
