import json

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData

from prunet_mm.engine.predictions import JsonPredictions, to_json
from prunet_mm.errors import PrunetError


class Masks:
    pass


def test_what_a_detector_says_becomes_json():
    found = InstanceData(bboxes=torch.tensor([[0.5, 1, 2, 3]]), labels=torch.tensor([7]))
    sample = BaseDataElement(
        metainfo=dict(img_path='a.jpg', scale_factor=(np.float32(0.5), 2.0)),
        pred_instances=found,
        gt_masks=Masks(),
    )
    assert json.loads(to_json(sample)) == dict(
        img_path='a.jpg',
        scale_factor=[0.5, 2.0],
        pred_instances=dict(bboxes=[[0.5, 1, 2, 3]], labels=[7]),
        gt_masks='Masks',
    )


def test_numbers_that_json_does_not_have_are_null():
    metrics = {'mAP': np.float64('nan'), 'scores': torch.tensor([0.5, float('inf')]), 'name': 'NaN'}
    assert to_json(metrics) == '{"mAP": null, "scores": [0.5, null], "name": "NaN"}'


def test_one_line_per_sample_and_exact_scores(tmp_path):
    metric = JsonPredictions(tmp_path / 'out.json')
    scores = torch.rand(3, 4)
    metric.process(None, [dict(score=row) for row in scores[:2]])
    metric.process(None, [dict(score=scores[2])])
    assert metric.evaluate(size=3) == {}
    lines = (tmp_path / 'out.json').read_text().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (5, '[', ']')
    read = torch.tensor([sample['score'] for sample in json.loads('\n'.join(lines))])
    assert torch.equal(read, scores)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    metric = JsonPredictions(tmp_path / 'nowhere/out.json')
    with pytest.raises(PrunetError, match='cannot write'):
        metric.compute_metrics([])
