"""Every detection config builds what its page says, and learns from boxes."""

import json
import re
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from prunet_mm.detection.check import require_channels_fit
from prunet_mm.models import PRUNet

NAMES = [
    'retinanet_prunet',
    'retinanet_prunet-p1',
    'retinanet_gpunet-0',
    'retinanet_gpunet-1',
    'retinanet_gpunet-2',
    'retinanet_efficientnet-b0',
    'retinanet_resnet50',
    'efficientdet_prunet',
]
SIZE = (128, 192)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def load(root):
    """A function that reads a config, once."""
    read = cache(Config.fromfile)
    return lambda name: deepcopy(read(root / f'configs/det/{name}_coco.py'))


@pytest.fixture(scope='module', params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope='module')
def model(load, name):
    """The model with random weights; tests leave it as it is, but for gradients."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg = load(name).model
    # EfficientDet's images would all be padded to 512 px, which takes seconds.
    cfg.data_preprocessor.pop('batch_augments', None)
    model = MODELS.build(cfg)
    for module in model.modules():
        if getattr(module, 'init_cfg', None) and 'Pretrained' in str(module.init_cfg):
            module.init_cfg = None
    model.init_weights()
    return model


def batch(*boxes_per_image):
    """Random images with random boxes, as a data loader gives them."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    images, samples = [], []
    height, width = SIZE
    for boxes in boxes_per_image:
        corners = torch.rand(boxes, 2) * 0.5
        spans = 0.2 + 0.3 * torch.rand(boxes, 2)
        scale = torch.tensor([width, height, width, height])
        sample = DetDataSample(
            metainfo=dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0), img_id=0)
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corners, corners + spans], 1) * scale,
            labels=torch.randint(80, (boxes,)),
        )
        images.append(torch.randint(256, (3, *SIZE), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def losses(model, data):
    found = model(**model.data_preprocessor(data, training=True), mode='loss')
    return model.parse_losses(found)[0]


def test_a_training_step_reaches_every_weight(model):
    model.train().zero_grad()
    loss = losses(model, batch(3, 1))
    assert loss.isfinite()
    loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # what has no gradient stops training on several GPUs
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in trained.values())
    frozen = {name for name, _ in model.named_parameters()} - set(trained)
    assert all(name.startswith('backbone.') for name in frozen)


def test_images_without_annotations_have_a_finite_loss(model):
    with torch.no_grad():
        assert losses(model.train(), batch(0, 0)).isfinite()


def test_predictions_are_boxes_inside_the_image(model):
    model.eval()
    model.bbox_head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        (sample,) = model.test_step(batch(2))
    found = sample.pred_instances
    assert len(found) == 100
    height, width = SIZE
    assert (found.bboxes >= 0).all()
    assert (found.bboxes <= torch.tensor([width, height, width, height])).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert ((found.labels >= 0) & (found.labels < 80)).all()


def test_maps_have_the_strides_of_the_anchors(model):
    require_channels_fit(model)
    strides = [stride for stride, _ in model.bbox_head.prior_generator.strides]
    assert strides == [8, 16, 32, 64, 128]
    with torch.no_grad():
        maps = model.eval().extract_feat(torch.zeros(1, 3, 256, 512))
    for x, stride in zip(maps, strides, strict=True):
        # those of a network that pads by 0 are up to two smaller
        assert 256 // stride - x.shape[-2] in (0, 1, 2)
        assert 512 // stride - x.shape[-1] in (0, 1, 2)


def test_the_neck_takes_the_last_stage_of_each_stride_from_8_on(model):
    backbone = model.backbone
    if not isinstance(backbone, PRUNet):
        pytest.skip('the stages of other backbones end where the stride changes')
    last = {stride: stage for stage, stride in backbone.spec.out_strides.items() if stride >= 8}
    assert backbone.out_indices == tuple(last.values())


def test_the_page_lists_its_parameters(model, name, root):
    page = (root / 'configs/det/README.md').read_text()
    (line,) = re.findall(rf'^\| \[{name}_coco.py\]\({name}_coco.py\) .*', page, re.MULTILINE)
    *_, taken, parameters = line.strip('| ').split(' | ')
    assert int(parameters.replace(',', '')) == sum(p.numel() for p in model.parameters())
    stages = re.findall(r'(\d+) \((\d+), (\d+)\)', taken)
    assert tuple(int(stage) for stage, _, _ in stages) == tuple(model.backbone.out_indices)
    assert [int(channels) for _, channels, _ in stages] == model.neck.in_channels
    assert [int(stride) for _, _, stride in stages] == [8, 16, 32, 64][: len(stages)]


def test_retinanets_differ_in_their_backbones_alone(load):
    def rest(name):
        cfg = load(name).to_dict()
        backbone = cfg['model'].pop('backbone')
        cfg['model']['neck'].pop('in_channels')
        assert backbone['norm_eval']
        return cfg

    retinanets = [name for name in NAMES if name.startswith('retinanet')]
    base = rest(retinanets[0])
    assert base['train_cfg']['max_epochs'] == 12
    assert all(rest(name) == base for name in retinanets[1:])


def test_every_config_is_tested_and_on_the_page(root):
    found = {path.stem for path in (root / 'configs/det').glob('*_coco.py')}
    assert found == {f'{name}_coco' for name in NAMES}


def test_efficientdet_is_trained_as_published(load):
    cfg = load('efficientdet_prunet')
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 128
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    decays = {id(g['params'][0]): g['weight_decay'] for g in optim.optimizer.param_groups}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (4e-5 if parameter.ndim > 1 else 0), name

    steps, rates = 10, []  # per epoch
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s, optimizer=optim, epoch_length=steps, by_epoch=True))
        for s in cfg.param_scheduler
    ]
    for _ in range(cfg.train_cfg.max_epochs * steps):
        rates.append(optim.get_lr()['lr'][0])
        for scheduler in schedulers:
            scheduler.step()
    assert rates[0] < 1e-3
    assert max(rates) == pytest.approx(0.16)
    assert rates.index(max(rates)) in (steps - 1, steps)
    assert rates[150 * steps + steps // 2] == pytest.approx(0.08, rel=0.01)
    assert rates[-1] < 1e-4


def test_d1_of_the_page_is_scaled_as_published(root, tmp_path):
    page = (root / 'configs/det/README.md').read_text()
    (text,) = re.findall(r'```python\n(_base_ = .*?)```', page, re.DOTALL)
    path = tmp_path / 'd1.py'
    path.write_text(text.replace('./', f'{root}/configs/det/'))
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    require_channels_fit(model)
    rows = re.findall(r'^\| D1 \| (\d+) \| B1 \| (\d+) \| (\d+) \| (\d+) \|$', page, re.MULTILINE)
    pixels, width, cells, repeats = map(int, *rows)
    assert (model.neck.out_channels, len(model.neck.cells)) == (width, cells)
    assert len(model.bbox_head.class_net.convs) == repeats
    data = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    for part in (cfg.model.data_preprocessor, *data):
        assert '512' not in str(part)
        assert f'({pixels}, {pixels})' in str(part)


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """A folder like COCO's with a few images, and the config's classes."""
    root = tmp_path_factory.mktemp('coco')
    categories = DATASETS.get('mmdet.CocoDataset').METAINFO['classes']
    random = np.random.RandomState(0)
    (root / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(1, 5):
            name = f'{number:012}.jpg'
            pixels = random.randint(256, size=(96, 128, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / name)
            images.append(dict(id=number, file_name=name, height=96, width=128))
            for x, y in ((5, 5), (60, 40)):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=number,
                        category_id=number,
                        bbox=[x, y, 50, 40],
                        area=2000,
                        iscrowd=0,
                    )
                )
        content = dict(
            images=images,
            annotations=annotations,
            categories=[dict(id=i, name=name) for i, name in enumerate(categories, start=1)],
        )
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))
    return root


def shrink(cfg, pixels):
    """Sets the size of images in all pipelines."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for transform in loader.dataset.pipeline:
            for key in {'scale', 'crop_size'} & set(transform):
                transform[key] = (pixels, pixels)
    if 'batch_augments' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.batch_augments[0].size = (pixels, pixels)


class StartingWeights(Hook):
    def before_train(self, runner):
        self.weights = deepcopy(runner.model.backbone.state_dict())


@pytest.mark.parametrize('name', ['retinanet_prunet', 'efficientdet_prunet'])
def test_trains_from_a_classifier_s_checkpoint_and_is_evaluated(load, coco, tmp_path, name):
    cfg = load(name)
    shrink(cfg, 128)
    source = PRUNet(cfg.model.backbone.arch, init_cfg=None)
    for norm in source.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_()
    weights = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    weights['head.fc.weight'] = torch.zeros(2, 2)
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'classifier.pth')
    torch.save(dict(state_dict=weights), cfg.model.backbone.init_cfg.checkpoint)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{coco}/'
    cfg.val_evaluator.ann_file = f'{coco}/annotations/instances_val2017.json'
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.model.test_cfg.score_thr = 0.0
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    cfg.work_dir, cfg.experiment_name = str(tmp_path), name
    runner, start = Runner.from_cfg(cfg), StartingWeights()
    runner.register_hook(start)
    runner.train()
    assert runner.iter == 2
    ours, trained = source.state_dict(), runner.model.backbone.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in start.weights.items())
    changed = {key.split('.')[0] for key, value in ours.items() if not trained[key].equal(value)}
    assert 'stage6' in changed
    # RetinaNet's recipe freezes what comes first, EfficientDet's nothing.
    first = {'stem', 'stage1'}
    assert first & changed == (set() if name == 'retinanet_prunet' else first)
    scalars = runner.message_hub.log_scalars
    assert np.isfinite(scalars['train/loss'].current())
    assert scalars['val/coco/bbox_mAP'].current() >= -1
