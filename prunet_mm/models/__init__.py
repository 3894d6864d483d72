"""Blocks, backbone and neck of the networks that a search finds."""

from prunet_mm.models.blocks import build_block
from prunet_mm.models.prunet import PRUNet
from prunet_mm.models.tail import PRUNetTail

__all__ = ['PRUNet', 'PRUNetTail', 'build_block']
