"""What networks cost on a device. Importing it imports no torch; `measure` and `build` need it."""

from prunet_mm.latency.device import check_device
from prunet_mm.latency.table import Entry, LatencyTable, Validation

__all__ = ['Entry', 'LatencyTable', 'Validation', 'check_device']
