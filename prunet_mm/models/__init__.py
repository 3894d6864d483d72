"""Blocks, backbone and neck of the networks that a search finds."""

from prunet_mm.models.blocks import build_block

__all__ = ['build_block']
