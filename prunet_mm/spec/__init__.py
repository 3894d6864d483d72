"""Networks and search spaces as data. Imports no torch."""

from prunet_mm.spec.around import Around
from prunet_mm.spec.kernels import BlockKey, Kernel
from prunet_mm.spec.layer import LayerSpec, TailSpec
from prunet_mm.spec.network import NetworkSpec
from prunet_mm.spec.position import Candidate, Position
from prunet_mm.spec.space import SearchSpace, StemSpace
from prunet_mm.spec.stage import CandidateSpace, StageSpace
from prunet_mm.spec.zoo import load_zoo, zoo_names

__all__ = [
    'Around',
    'BlockKey',
    'Candidate',
    'CandidateSpace',
    'Kernel',
    'LayerSpec',
    'NetworkSpec',
    'Position',
    'SearchSpace',
    'StageSpace',
    'StemSpace',
    'TailSpec',
    'load_zoo',
    'zoo_names',
]
