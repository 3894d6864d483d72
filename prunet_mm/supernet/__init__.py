"""The network that holds a whole search space, and the parts that make it prunable."""

from prunet_mm.supernet.inherit import SuperNetInit, inherit_weights
from prunet_mm.supernet.prunode import Prunode
from prunet_mm.supernet.stochastic_layer import FixedBlock, StochasticLayer
from prunet_mm.supernet.supernet import SuperNet
from prunet_mm.supernet.trained import TrainedNetworkInit, start_as

__all__ = [
    'FixedBlock',
    'Prunode',
    'StochasticLayer',
    'SuperNet',
    'SuperNetInit',
    'TrainedNetworkInit',
    'inherit_weights',
    'start_as',
]
