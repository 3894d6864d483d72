"""A detector that learns from boxes and, at the same time, from a trained backbone.

Importing this module loads all of mmdet's models: mmdet's registry does it when a model is first
looked up there.
"""

from __future__ import annotations

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from torch import Tensor, nn

from prunet_mm.errors import ConfigError
from prunet_mm.models.teacher import Taught
from prunet_mm.models.unexplained import unexplained


@MODELS.register_module(name='DistillingDetector')
def distilling_detector(
    detector: str, teacher: dict, distill_weight: float = 1.0, **settings
) -> BaseDetector:
    """Builds one of mmdet's detectors, whose loss in training also asks for a teacher's maps.

    The loss is the detector's, plus ``loss_distill``: the share of the variance of the teacher's
    maps that the backbone's leave unexplained, mean over the maps. A network that is cut from the
    teacher has maps of the same channels, so nothing has to be learnt between them. Ours.

    Checkpoints are those of the detector, and fit one.

    Args:
        detector: The detector's type, such as ``'RetinaNet'``.
        teacher: Config of a backbone with the same maps, and an ``init_cfg`` that names its
            weights. It sees images as the student does.
        distill_weight: Factor of the teacher's part of the loss.
        settings: The detector's.

    Raises:
        ConfigError: There is no such detector.
    """
    base = MODELS.get(detector)
    if not (isinstance(base, type) and issubclass(base, BaseDetector)):
        raise ConfigError(
            f'DistillingDetector: detector is {detector!r}, expected a detector of mmdet, such as '
            "'RetinaNet'"
        )
    model = type(f'Distilling{base.__name__}', (_TaughtMaps, base), {})(**settings)
    model.teacher_cfg, model.distill_weight = teacher, distill_weight
    return model


class _TaughtMaps(Taught):
    """Mixin for a detector, in front of its class."""

    def make_teacher(self) -> nn.Module:
        try:
            teacher = MODELS.build(self.teacher_cfg)
            teacher.init_weights()
        except Exception as error:  # a checkpoint can fail in any way
            text = ' '.join(f'{type(error).__name__}: {error}'.split())
            raise ConfigError(
                f'DistillingDetector: the teacher cannot be made ({text}); check model.teacher, '
                'or train without one'
            ) from error
        return teacher

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """The detector's losses and the teacher's, by name, for images (N, C, H, W)."""
        seen = []
        handle = self.backbone.register_forward_hook(lambda _, __, maps: seen.append(maps))
        try:
            losses = super().loss(batch_inputs, batch_data_samples)
        finally:
            handle.remove()
        wanted = self.taught(batch_inputs)
        (found,) = seen
        shapes = [[tuple(one.shape[1:]) for one in maps] for maps in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"DistillingDetector: the teacher's maps are {shapes[0]} and the student's "
                f'{shapes[1]} (channels, height, width), but have to be the same: check '
                'out_indices of model.teacher and model.backbone'
            )
        shares = [unexplained(*pair) for pair in zip(found, wanted, strict=True)]
        return losses | dict(loss_distill=self.distill_weight * torch.stack(shares).mean())
