"""One hook per tier of pruning, and what surrounds them.

A timeline, since each hook knows its own part alone: the architecture phase from the end of the
warm-up (0) to the last step (1), with the defaults of the hooks and of the ramp of the budget::

    0.0    0.1    0.2    0.3    0.4    0.5    0.6    0.7    0.8    0.9    1.0
    |------| choices are listened to, at no price
           |-------- the budget falls --------|
    |----------------------- pairs of widths walk ------------------------|
    |--- pairs narrow, to neighbours on the grid ----|
                                              |---------------------------| candidates go
    |-------------------------- skips are open ---------------------------|
                                              |---------| layers are tested
                                                        | choices settle -|

Lines from above: the loop; RampHook, whose fall ends later by its rests at targets on the way (0.15
in sum at most); PrunodeHook, twice; BlockPruningHook; LayerPruningHook, twice; SettleHook. These
points open a gate and force nothing: whatever removes or settles waits until the budget has come to
rest, lambda is steady and E[lat] is at the budget. What is not settled at 1 is settled at once, by
DeriveHook. TemperatureHook cools all the while, where candidates are blended.

Before all of it, where the SuperNet starts as a trained network, TrainedStartHook sorts channels,
has candidates imitate the trained layers, and judges each alternative alone, in this order.

After a step RampHook acts first, then the tiers in the order of the config, HistoryHook, and the
checkpoint.
"""

from prunet_mm.search.hooks.block_pruning_hook import BlockPruningHook
from prunet_mm.search.hooks.derive_hook import DeriveHook
from prunet_mm.search.hooks.history_hook import HistoryHook
from prunet_mm.search.hooks.layer_pruning_hook import LayerPruningHook
from prunet_mm.search.hooks.prunode_hook import PrunodeHook
from prunet_mm.search.hooks.ramp_hook import RampHook
from prunet_mm.search.hooks.settle_hook import SettleHook
from prunet_mm.search.hooks.state_hook import SearchStateHook
from prunet_mm.search.hooks.temperature_hook import TemperatureHook
from prunet_mm.search.hooks.trained_start_hook import TrainedStartHook

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
    'TrainedStartHook',
]
