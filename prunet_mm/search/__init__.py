"""The search: model, loop, latency objectives, hooks, and what comes out."""

from prunet_mm.search.hooks import (
    BlockPruningHook,
    DeriveHook,
    HardenHook,
    HistoryHook,
    LayerPruningHook,
    PrunodeHook,
    SearchStateHook,
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
    'HardenHook',
    'HistoryHook',
    'LayerPruningHook',
    'PrunodeHook',
    'SearchLoop',
    'SearchOptimWrapperConstructor',
    'SearchRunner',
    'SearchStateHook',
    'TemperatureHook',
]
