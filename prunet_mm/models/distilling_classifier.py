"""A classifier that learns from labels and, at the same time, from another classifier.

Importing this module loads all of mmpretrain's models: mmpretrain's registry does it when a model
is first looked up there.
"""

from __future__ import annotations

from mmpretrain.models import ImageClassifier, TimmClassifier
from mmpretrain.models.classifiers.base import BaseClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn import functional as F

from prunet_mm.errors import ConfigError
from prunet_mm.models.teacher import Taught


@MODELS.register_module()
class DistillingClassifier(Taught, ImageClassifier):
    """mmpretrain's `ImageClassifier`, whose loss in training also asks for a teacher's outputs.

    The loss is the head's, logged as ``loss_cls``, plus the cross-entropy with the teacher's
    softmax, logged as ``loss_distill`` (*Distilling the Knowledge in a Neural Network*, arXiv
    1503.02531, at temperature 1).

    The teacher never changes and is no part of the student (`Taught`), so checkpoints are those of
    an `ImageClassifier`, and fit one.

    Args:
        backbone: Config of the student's backbone.
        head: Config of the student's head.
        teacher: Config of any mmpretrain classifier for the same classes in the same order. It sees
            images as the student does, so it has to expect the mean and standard deviation of the
            student's ``data_preprocessor``. Either it comes with weights, as
            ``dict(type='TimmClassifier', ..., pretrained=True)`` does, or its ``init_cfg`` names a
            checkpoint.
        neck: Config of the student's neck.
        teacher_size: Height and width in pixels to which the teacher's images are resized,
            bicubically; None for those of the student.
        distill_weight: Factor of the teacher's part of the loss.
        train_cfg: As for `ImageClassifier`.
        data_preprocessor: As for `ImageClassifier`.
        init_cfg: As for `ImageClassifier`.

    Raises:
        ConfigError: When weights are initialised, which is before training: the teacher cannot be
            made, or its number of classes differs from the student's.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        teacher: dict,
        neck: dict | None = None,
        teacher_size: int | None = None,
        distill_weight: float = 1.0,
        train_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            train_cfg=train_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if teacher_size is not None and teacher_size < 1:
            raise ConfigError(
                f'DistillingClassifier: teacher_size is {teacher_size}, but has to be a number of '
                'pixels or None'
            )
        self.teacher_cfg = teacher
        self.teacher_size = teacher_size
        self.distill_weight = distill_weight

    def make_teacher(self) -> BaseClassifier:
        """Makes the teacher; raises `ConfigError` where it cannot be, or has other classes."""
        teacher = _make_teacher(self.teacher_cfg)
        _check_classes(self, teacher)
        return teacher

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The head's losses and the teacher's, by name, for images (N, C, H, W)."""
        feats = self.extract_feat(inputs)
        losses = self.head.loss(feats, data_samples)
        losses['loss_cls'] = losses.pop('loss')  # mmengine logs the sum of all under 'loss'
        distill = F.cross_entropy(self.head(feats), self.taught(inputs))
        return losses | dict(loss_distill=self.distill_weight * distill)

    def ask(self, images: Tensor) -> Tensor:
        """Returns the teacher's probabilities (N, classes)."""
        if self.teacher_size is not None:
            size = (self.teacher_size, self.teacher_size)
            images = F.interpolate(images, size, mode='bicubic', align_corners=False)
        return self.teacher(images).softmax(1)


def _make_teacher(config: dict) -> BaseClassifier:
    try:
        teacher = MODELS.build(config)
        # timm loads weights as it builds; some of its networks have a method of the same name,
        # which mmengine would call and which draws new weights.
        if teacher.init_cfg or not isinstance(teacher, TimmClassifier):
            teacher.init_weights()
    except Exception as error:  # a package, a download or a checkpoint can fail in any way
        raise ConfigError(_why_not(config, error)) from error
    return teacher


def _why_not(config: dict, error: Exception) -> str:
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    advice = 'check model.teacher, or train without a teacher (configs named *_no-teacher_*)'
    if isinstance(error, ImportError) and 'timm' in str(error):
        advice = (
            'it takes the package timm: run "pip install timm", or train without a teacher '
            '(configs named *_no-teacher_*)'
        )
    return f'DistillingClassifier: the teacher cannot be made ({text}); {advice}'


def _check_classes(student: ImageClassifier, teacher: BaseClassifier) -> None:
    """Compares what both say about themselves; one that says nothing passes."""
    is_timm = isinstance(teacher, TimmClassifier)
    theirs = getattr(
        teacher.model if is_timm else getattr(teacher, 'head', None), 'num_classes', None
    )
    ours = getattr(student.head, 'num_classes', None)
    if None not in (ours, theirs) and ours != theirs:
        raise ConfigError(
            f'DistillingClassifier: the teacher knows {theirs} classes and the student {ours}, but '
            'they have to be the same ones: check model.teacher and model.head'
        )
