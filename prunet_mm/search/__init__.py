"""The search: model, loop, latency objectives, hooks, and what comes out."""

from prunet_mm.search.hooks import (
    BlockPruningHook,
    DeriveHook,
    HistoryHook,
    LayerPruningHook,
    PrunodeHook,
    RampHook,
    SearchStateHook,
    SettleHook,
    TemperatureHook,
)
from prunet_mm.search.loop import SearchLoop
from prunet_mm.search.model import ArchitectureSearch
from prunet_mm.search.optim import SearchOptimWrapperConstructor
from prunet_mm.search.runner import SearchRunner

__all__ = [
    'ArchitectureSearch',
    'BlockPruningHook',
    'DeriveHook',
    'HistoryHook',
    'LayerPruningHook',
    'PrunodeHook',
    'RampHook',
    'SearchLoop',
    'SearchOptimWrapperConstructor',
    'SearchRunner',
    'SearchStateHook',
    'SettleHook',
    'TemperatureHook',
]
