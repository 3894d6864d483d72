"""Neck and head of EfficientDet, registered in mmdet, and checks of whole detectors.

Importing this package loads nothing of mmdet: its registry imports the two when a model is first
looked up there.
"""

from prunet_mm.registry import register_on_lookup

register_on_lookup('prunet_mm.detection.bifpn', scope='mmdet')
register_on_lookup('prunet_mm.detection.efficientdet_head', scope='mmdet')
