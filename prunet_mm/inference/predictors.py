"""Trained networks as what takes an image and finds something in it, step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor

from prunet_mm.errors import ConfigError
from prunet_mm.inference.metadata import Usage
from prunet_mm.inference.preparing import Prepared
from prunet_mm.inference.reading import Findings

if TYPE_CHECKING:
    from mmengine.config import Config


class Predictor(ABC):
    """What finds something in images.

    Attributes:
        classes: Names of the classes, by number.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def prepare(self, image: np.ndarray) -> Any:
        """Makes the input of an image (H, W, 3), uint8, blue first."""

    @abstractmethod
    def run(self, prepared: Any) -> Any:
        """Runs the network; returns when it is done."""

    @abstractmethod
    def read(self, outputs: Any, prepared: Any) -> Findings:
        """What was found, in pixels of the image."""


class FixedSize(Predictor):
    """A network for one size of input: an exported one, or a classifier.

    Args:
        usage: How to use it.
        call: Maps (1, C, H, W), float32, to its outputs.
    """

    def __init__(self, usage: Usage, call: Callable[[np.ndarray], Sequence[np.ndarray]]) -> None:
        self.classes = usage.classes
        self.usage = usage
        self.call = call

    def prepare(self, image: np.ndarray) -> Prepared:
        return self.usage.preparation(image)

    def run(self, prepared: Prepared) -> Sequence[np.ndarray]:
        return self.call(prepared.pixels[None])

    def read(self, outputs: Sequence[np.ndarray], prepared: Prepared) -> Findings:
        (found,) = self.usage.read(outputs)
        return found.unscaled(prepared.scale, prepared.content)


class MmdetDetector(Predictor):
    """A single-stage detector of mmdet, with the pipeline and the sizes of its config's test.

    Args:
        detector: The model, in evaluation mode.
        pipeline: The transforms of its test.
        classes: Names of the classes.
    """

    def __init__(
        self, detector: torch.nn.Module, pipeline: Sequence[dict], classes: tuple[str, ...]
    ) -> None:
        loading = 'LoadImageFromFile', 'LoadAnnotations'
        steps = [step for step in pipeline if step['type'].rpartition('.')[2] not in loading]
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.pipeline = Compose(steps)
        self.detector = detector
        self.classes = classes

    def prepare(self, image: np.ndarray) -> dict:
        size = image.shape[:2]
        sample = dict(img=image, img_shape=size, ori_shape=size, img_path='', img_id=0)
        return self.detector.data_preprocessor(pseudo_collate([self.pipeline(sample)]), False)

    def run(self, prepared: dict) -> Sequence[list[Tensor]]:
        with torch.no_grad():
            return self.detector(prepared['inputs'], mode='tensor')

    def read(self, outputs: Sequence[list[Tensor]], prepared: dict) -> Findings:
        metas = [sample.metainfo for sample in prepared['data_samples']]
        with torch.no_grad():
            (found,) = self.detector.bbox_head.predict_by_feat(
                *outputs, batch_img_metas=metas, rescale=True
            )
        return Findings(found.scores.numpy(), found.labels.numpy(), found.bboxes.numpy())


def from_file(path: str) -> Predictor:
    """A predictor of an exported .onnx file alone.

    Raises:
        ConfigError: onnxruntime is not installed, or the file is missing, damaged, for TensorRT
            only, or none of `tools/export.py`.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(
            f'{path}: takes onnxruntime, which is not installed: pip install onnxruntime'
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # of classes that it does not name
        raise ConfigError(f'{path}: {_why(str(error))}') from error
    usage = Usage.from_metadata(session.get_modelmeta().custom_metadata_map, path)
    (name,) = (value.name for value in session.get_inputs())
    return FixedSize(usage, lambda x: session.run(None, {name: x}))


def _why(error: str) -> str:
    if 'EfficientNMS' in error:
        return (
            "its boxes are selected by TensorRT's plugin, so only TensorRT runs it: export another "
            'with --nms onnx'
        )
    if "doesn't exist" in error:
        return 'there is no such file'
    return f'ONNX Runtime cannot load it ({error.splitlines()[0].rpartition(" : ")[2]})'


def from_config(cfg: Config, checkpoint: str) -> Predictor:
    """A predictor of a config and its weights, in PyTorch on the CPU.

    Raises:
        ConfigError: The model is neither a classifier with a `PRUNet` nor a single-stage detector.
        CheckpointError: The checkpoint cannot be read or is that of another model.
    """
    # Here, since those import what exported files need of this package.
    from prunet_mm.deploy.detector import model_of
    from prunet_mm.deploy.network import build_network, class_names, is_detector, load
    from prunet_mm.detection.post_processing import has_plain_head

    if not is_detector(cfg):
        network = build_network(cfg, 'model', checkpoint)

        def call(x: np.ndarray) -> list[np.ndarray]:
            with torch.no_grad():
                return [network.module(torch.from_numpy(x)).numpy()]

        return FixedSize(network.usage, call)
    detector = model_of(cfg)
    if not has_plain_head(detector):
        raise ConfigError(
            f'{cfg.filename}: only detectors that post-process as RetinaNet and EfficientDet do '
            f'are run here, and {type(detector).__name__} does not: take mmdet.apis.DetInferencer'
        )
    meta = load(detector, checkpoint, 'model')
    classes = class_names(cfg, meta, detector.bbox_head.num_classes)
    pipeline = cfg.test_dataloader.dataset.pipeline
    return MmdetDetector(detector.eval(), pipeline, classes)
