"""The small real data sets that a newcomer can run on."""

from prunet_mm.datasets.digits import Digits
from prunet_mm.datasets.gray import Gray

__all__ = ['Digits', 'Gray']
