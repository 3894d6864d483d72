"""What the blocks of a search space cost on a device, as a table. Importing it imports no torch."""

from prunet_mm.latency.table import Entry, LatencyTable
from prunet_mm.latency.validation import Validation

__all__ = ['Entry', 'LatencyTable', 'Validation']
