"""What export costs and gains: mAP and time of an exported detector beside mmdet's own.

    python benchmarks/exported_detector.py configs/det/retinanet_prunet_bccd.py CHECKPOINT

Both see the images of the config's test one by one, in turns. mAP is pycocotools'. Times are the
processor's, of network and post-processing, on one thread; the file is run by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from prunet_mm.deploy.agreement import export_detector
from prunet_mm.deploy.detector import build_detector
from prunet_mm.engine import cli
from prunet_mm.engine.files import write_atomic
from prunet_mm.inference.predictors import Predictor, from_config, from_file
from prunet_mm.inference.reading import Findings
from prunet_mm.inference.sources import read_image, test_dataset, test_images
from prunet_mm.timing.device import device_name, software

WARM_UP = 3  # images
CHECKED = 8


def main() -> None:
    """Export, evaluate, time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', metavar='FILE.json', help='also write the figures to this file')
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = cli.load_config(args.config, args.cfg_options)
    images = [read_image(path) for path in test_images(cfg, CHECKED)]
    network = build_detector(cfg, 'detections', args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, 'detector.onnx'))
        export_detector(network, 'onnx', path, images)
        predictors = dict(mmdet=from_config(cfg, args.checkpoint), exported=from_file(path))
    figures = compare(cfg, predictors)
    print(json.dumps(figures, indent=2))
    if args.out:
        write_atomic(args.out, json.dumps(figures, indent=2) + '\n')


def compare(cfg, predictors: dict[str, Predictor]) -> dict:
    """mAP in percent, and median processor time in ms per image, of each predictor."""
    dataset = test_dataset(cfg)
    results = {name: [] for name in predictors}
    times_ms = {name: [] for name in predictors}
    for number in range(len(dataset)):
        about = dataset.get_data_info(number)
        image = read_image(Path(about['img_path']))
        for name, predictor in predictors.items():
            prepared = predictor.prepare(image)
            start = time.process_time()
            found = predictor.read(predictor.run(prepared), prepared)
            times_ms[name].append(1e3 * (time.process_time() - start))
            results[name] += as_coco(found, about['img_id'], dataset.cat_ids)
    medians = {name: statistics.median(times[WARM_UP:]) for name, times in times_ms.items()}
    ratios = [a / b for a, b in zip(*(times[WARM_UP:] for times in times_ms.values()), strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    return dict(
        device=device_name('cpu'),
        software=software('cpu', ['onnxruntime']),
        images=len(dataset),
        mAP={name: mean_ap(dataset.ann_file, found) for name, found in results.items()},
        processor_ms=medians,
        mmdet_over_exported=dict(median=quartiles[1], quartiles=[quartiles[0], quartiles[2]]),
    )


def as_coco(found: Findings, image: int, categories: list[int]) -> list[dict]:
    """Results of an image as pycocotools takes them."""
    return [
        dict(
            image_id=image,
            category_id=categories[label],
            bbox=[*map(float, (*box[:2], *(box[2:] - box[:2])))],
            score=float(score),
        )
        for score, label, box in zip(found.scores, found.labels, found.boxes, strict=True)
    ]


def mean_ap(annotations: str, results: list[dict]) -> float:
    """mAP of boxes over IoU of 0.5 to 0.95, in percent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0])


if __name__ == '__main__':
    cli.run(main)
