"""The small real data sets that a newcomer can run on."""

from prunet_mm.datasets.digits import Digits

__all__ = ['Digits']
