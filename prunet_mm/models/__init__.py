"""Blocks, backbone and neck of the networks that a search finds."""

from prunet_mm.models.blocks import build_block
from prunet_mm.models.prunet import PRUNet
from prunet_mm.models.tail import PRUNetTail
from prunet_mm.registry import register_on_lookup

__all__ = ['PRUNet', 'PRUNetTail', 'build_block']

register_on_lookup('prunet_mm.models.distilling_classifier')
