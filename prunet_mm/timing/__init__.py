"""What times anything: one engine, the backends it runs models by, and the state of the machine.

Importing it imports no torch.
"""

from prunet_mm.timing.settings import Settings

__all__ = ['Settings']
