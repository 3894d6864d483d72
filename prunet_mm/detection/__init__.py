"""What mmdet has not: neck and head of EfficientDet, distillation, a metric, checks of detectors.

Importing this package loads nothing of mmdet: its registries import them when a model or a metric
is first looked up there.
"""

from prunet_mm.registry import register_on_lookup

register_on_lookup('prunet_mm.detection.bifpn', scope='mmdet')
register_on_lookup('prunet_mm.detection.distilling_detector', scope='mmdet')
register_on_lookup('prunet_mm.detection.efficientdet_head', scope='mmdet')
register_on_lookup('prunet_mm.detection.coco_metric', scope='mmdet', kind='METRICS')
