"""One hook per tier of pruning, and what surrounds them."""

from prunet_mm.search.hooks.block_pruning_hook import BlockPruningHook
from prunet_mm.search.hooks.derive_hook import DeriveHook
from prunet_mm.search.hooks.history_hook import HistoryHook
from prunet_mm.search.hooks.layer_pruning_hook import LayerPruningHook
from prunet_mm.search.hooks.prunode_hook import PrunodeHook
from prunet_mm.search.hooks.ramp_hook import RampHook
from prunet_mm.search.hooks.settle_hook import SettleHook
from prunet_mm.search.hooks.state_hook import SearchStateHook
from prunet_mm.search.hooks.temperature_hook import TemperatureHook

__all__ = [
    'BlockPruningHook',
    'DeriveHook',
    'HistoryHook',
    'LayerPruningHook',
    'PrunodeHook',
    'RampHook',
    'SearchStateHook',
    'SettleHook',
    'TemperatureHook',
]
