"""The end of a detector's graph: of candidates to detections, by an operator of ONNX or TensorRT.

Each function takes an ONNX model whose outputs are boxes (N, K, 4), scores (N, K) and labels (N, K)
and returns it with count (N,), boxes (N, M, 4), scores (N, M) and labels (N, M) instead, best
first. What lies behind ``count`` is no detection.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from prunet_mm.deploy.formats import Call, Runtime, load_onnx
from prunet_mm.inference.metadata import OUTPUTS
from prunet_mm.inference.reading import Findings, Selection

if TYPE_CHECKING:
    from onnx import ModelProto

PLUGIN = 'EfficientNMS_TRT'

# The boxes of a class are suppressed by those of the same class alone: there is a row of scores per
# class, in which those of the others are 0. Names with "nms_" are in no exported network.
_ONNX = """
<ir_version: {ir}, opset_import: ["": {opset}]>
suppression (
    float[batch, {candidates}, 4] candidate_boxes,
    float[batch, {candidates}] candidate_scores,
    int64[batch, {candidates}] candidate_labels
) => (
    int32[batch] count,
    float[batch, {limit}, 4] boxes,
    float[batch, {limit}] scores,
    int32[batch, {limit}] labels
) <
    int64[1, {classes}, 1] nms_classes = {{{numbers}}},
    int64[1] nms_one = {{1}},
    int64[1] nms_last = {{-1}},
    int64[2] nms_image_and_box = {{0, 2}},
    int64[1] nms_limit = {{{limit}}},
    float nms_iou = {{{iou}}},
    float nms_score = {{{score}}},
    float nms_zero = {{0}},
    int32 nms_none = {{-1}}
> {{
    nms_label_rows = Unsqueeze(candidate_labels, nms_one)
    nms_score_rows = Unsqueeze(candidate_scores, nms_one)
    nms_is_of_class = Equal(nms_label_rows, nms_classes)
    nms_class_scores = Where(nms_is_of_class, nms_score_rows, nms_zero)
    nms_selected = NonMaxSuppression(
        candidate_boxes, nms_class_scores, nms_limit, nms_iou, nms_score
    )
    nms_places = Gather <axis = 1> (nms_selected, nms_image_and_box)
    nms_selected_scores = GatherND(candidate_scores, nms_places)
    nms_no_scores = Mul(candidate_scores, nms_zero)
    nms_kept_scores = ScatterND(nms_no_scores, nms_places, nms_selected_scores)
    scores, nms_order = TopK <axis = 1> (nms_kept_scores, nms_limit)
    nms_found = Greater(scores, nms_zero)
    nms_found_numbers = Cast <to = 6> (nms_found)
    count = ReduceSum <keepdims = 0> (nms_found_numbers, nms_one)
    nms_rows = Unsqueeze(nms_order, nms_last)
    nms_boxes = GatherND <batch_dims = 1> (candidate_boxes, nms_rows)
    nms_found_rows = Unsqueeze(nms_found, nms_last)
    boxes = Where(nms_found_rows, nms_boxes, nms_zero)
    nms_labels = GatherElements <axis = 1> (candidate_labels, nms_order)
    nms_short_labels = Cast <to = 6> (nms_labels)
    labels = Where(nms_found, nms_short_labels, nms_none)
}}
"""

_TENSORRT = """
<ir_version: {ir}, opset_import: ["": {opset}, "trt.plugins": 1]>
suppression (
    float[batch, {candidates}, 4] candidate_boxes,
    float[batch, {candidates}] candidate_scores,
    int64[batch, {candidates}] candidate_labels
) => (
    int32[batch] count,
    float[batch, {limit}, 4] boxes,
    float[batch, {limit}] scores,
    int32[batch, {limit}] labels
) <
    int64[1, 1, {classes}] nms_classes = {{{numbers}}},
    int64[1] nms_one = {{1}},
    int64[1] nms_last = {{-1}},
    float nms_zero = {{0}}
> {{
    nms_label_columns = Unsqueeze(candidate_labels, nms_last)
    nms_score_columns = Unsqueeze(candidate_scores, nms_last)
    nms_is_of_class = Equal(nms_label_columns, nms_classes)
    nms_class_scores = Where(nms_is_of_class, nms_score_columns, nms_zero)
    nms_counts, boxes, scores, labels = trt.plugins.{plugin} <
        plugin_version = "1", background_class = -1, score_activation = 0, box_coding = 0,
        class_agnostic = 0, max_output_boxes = {limit}, score_threshold = {score},
        iou_threshold = {iou}
    > (candidate_boxes, nms_class_scores)
    count = Squeeze(nms_counts, nms_one)
}}
"""


def with_onnx_nms(model: ModelProto, selection: Selection, classes: int) -> ModelProto:
    """Suppresses by ONNX's own NonMaxSuppression."""
    return _joined(_ONNX, model, selection, classes)


def with_tensorrt_nms(model: ModelProto, selection: Selection, classes: int) -> ModelProto:
    """Suppresses by TensorRT's plugin EfficientNMS, which nothing else can run."""
    return _joined(_TENSORRT, model, selection, classes)


def _joined(text: str, model: ModelProto, selection: Selection, classes: int) -> ModelProto:
    import onnx

    candidates = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    text = text.format(
        ir=model.ir_version,
        opset=model.opset_import[0].version,
        plugin=PLUGIN,
        candidates=candidates,
        limit=min(selection.limit, candidates),
        classes=classes,
        numbers=', '.join(map(str, range(classes))),
        iou=float(selection.iou_threshold),
        score=float(selection.score_threshold),
    )
    ends = [value.name for value in model.graph.output]
    joined = onnx.compose.merge_models(
        model, onnx.parser.parse_model(text), io_map=[(end, end) for end in ends]
    )
    assert tuple(value.name for value in joined.graph.output) == OUTPUTS['detections']
    versions = {
        entry.domain: entry.version for entry in joined.opset_import
    }  # some are there twice
    del joined.opset_import[:]
    joined.opset_import.extend(onnx.helper.make_opsetid(*item) for item in versions.items())
    return joined


SUPPRESSIONS = {'onnx': with_onnx_nms, 'tensorrt': with_tensorrt_nms}


def load_up_to_plugin(data: bytes) -> Call:
    """A model with TensorRT's plugin in ONNX Runtime, with our own NMS in the plugin's place.

    So all that the graph does up to the plugin can be checked without TensorRT, and that it hands
    over what the plugin's description asks for; the plugin itself cannot.
    """
    import onnx

    model = onnx.load(io.BytesIO(data))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    selection = Selection.from_dict(json.loads(metadata['postprocessing']))
    nodes = list(model.graph.node)
    (at,) = (index for index, node in enumerate(nodes) if node.op_type == PLUGIN)
    del model.graph.node[at:], model.graph.output[:]  # what the plugin returns is read at once
    for name in nodes[at].input:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(value)
    handed_over = load_onnx(model.SerializeToString())

    def call(x: torch.Tensor) -> list[torch.Tensor]:
        boxes, scores = (y.numpy() for y in handed_over(x))
        found = [_by_class(selection, *image) for image in zip(scores, boxes, strict=True)]
        outputs = [np.array([len(one.scores) for one in found])]
        for name in ('boxes', 'scores', 'labels'):
            values = [getattr(one, name) for one in found]
            padded = np.zeros((len(found), selection.limit, *values[0].shape[1:]), values[0].dtype)
            for row, value in zip(padded, values, strict=True):
                row[: len(value)] = value
            outputs.append(padded)
        return [torch.from_numpy(output) for output in outputs]

    return call


def _by_class(selection: Selection, scores: np.ndarray, boxes: np.ndarray) -> Findings:
    """NMS on scores (K, classes) and boxes (K, 4)."""
    rows, labels = np.nonzero(scores > selection.score_threshold)
    return selection.suppress(Findings(scores[rows, labels], labels, boxes[rows]))


UP_TO_PLUGIN = Runtime('ONNX Runtime (without the plugin)', 'onnxruntime', load_up_to_plugin)
