"""Every training config builds what its network's spec says, and trains as the recipe says."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image

from prunet_mm.models import PRUNet
from prunet_mm.spec import NetworkSpec, SearchSpace

ROOT = Path(__file__).parents[2]
ACTS = dict(relu=torch.nn.ReLU, relu6=torch.nn.ReLU6)
CONFIGS = sorted((ROOT / 'configs/cls').glob('*.py'))
IMAGENET = [path for path in CONFIGS if path.stem.endswith('_8xb256_in1k')]
DISTILLED = [
    path for path in IMAGENET if Config.fromfile(path).model.type == 'DistillingClassifier'
]
OTHER_CLASSES = ['lite0_cifar10']  # than the network has whose weights it starts from
# one of each resolution, since the rest of these lines is shared
RESOLUTIONS = [path for path in IMAGENET if 'no-teacher' not in path.stem and 'p1' not in path.stem]


def by_name(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


@pytest.fixture
def load(tmp_path):
    """A config, with a network where it waits for one that was found by a search."""

    def load(path):
        cfg = Config.fromfile(path)
        arch = cfg.model.backbone.arch
        if isinstance(arch, str) and (arch.startswith('work_dirs') or path.stem in OTHER_CLASSES):
            space = Config.fromfile(ROOT / 'configs/search' / path.name).space
            cfg.model.backbone.arch = str(tmp_path / 'subnet.json')
            SearchSpace.from_dict(space).largest().save(cfg.model.backbone.arch)
        return cfg

    return load


def build(cfg):
    """The model without memory: shapes alone."""
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """A function that makes a folder of JPEGs, one hue per class, as CIFAR-10's and ImageNet's."""

    def make(splits, suffix, size, per_class, classes=4):
        root = tmp_path_factory.mktemp('images')
        random = np.random.RandomState(0)
        colours = random.randint(40, 216, (classes, 3))
        for split in splits:
            for index in range(classes):
                folder = root / split / f'class{index}'
                folder.mkdir(parents=True)
                for number in range(per_class):
                    noise = random.randint(-40, 40, (*size, 3))
                    pixels = (colours[index] + noise).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f'{number}{suffix}')
        return root

    return make


@pytest.fixture(scope='session')
def imagenet(images):
    return images(['train', 'val'], '.JPEG', (300, 400), per_class=1)


def small_arch(stride):
    """A network of a thousandth of PRUNET-P0's size."""
    common = dict(kernel=3, act='relu')
    first = dict(op='conv', in_channels=3, out_channels=8, stride=stride, stage=0)
    block = dict(op='irb', in_channels=8, out_channels=16, stride=2, hidden=16, stage=1)
    return dict(
        schema_version=1,
        name='small',
        resolution=32,
        stem=[first | common],
        layers=[block | common],
    )


@by_name(CONFIGS)
def test_model_is_what_the_spec_says(load, path):
    cfg = load(path)
    model = build(cfg)
    spec = model.backbone.spec
    head = cfg.model.head
    assert (head.num_classes, cfg.data_preprocessor.num_classes) == (spec.tail.num_classes,) * 2
    assert sum(p.numel() for p in model.parameters()) == spec.params()
    if cfg.model.neck.type == 'PRUNetTail':
        tail = MODELS.build(cfg.model.neck)
        assert tail.dropout.p == spec.tail.dropout
        assert tail.conv.norm.eps == spec.norm_eps
        assert type(tail.conv.activate) is ACTS[spec.tail.act]
    images = torch.empty(2, spec.in_channels, spec.resolution, spec.resolution, device='meta')
    for mode in (True, False):
        assert model.train(mode)(images).shape == (2, head.num_classes)


@by_name(RESOLUTIONS)
def test_images_come_at_the_resolution_of_the_network(path, imagenet):
    cfg = Config.fromfile(path)
    size = build(cfg).backbone.spec.resolution
    resize, crop = cfg.test_dataloader.dataset.pipeline[1:3]
    assert (crop.crop_size, resize.scale) == (size, math.floor(size / 0.875))
    assert cfg.val_dataloader == cfg.test_dataloader
    preprocess = MODELS.build(dict(type='ClsDataPreprocessor', **cfg.data_preprocessor))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build(dict(loader.dataset, data_root=str(imagenet)))
        batch = preprocess(pseudo_collate([dataset[0], dataset[3]]))
        assert batch['inputs'].shape == (2, 3, size, size)
        assert [int(sample.gt_label) for sample in batch['data_samples']] == [0, 3]


def test_augmentations_are_as_strong_as_timms_rand_m9():
    auto_augment = pytest.importorskip('timm.data.auto_augment')
    theirs = dict(ColorTransform='Color', Shear='ShearX', Translate='TranslateXRel')
    # what timm makes of a number: whole bits, whole grey values, a factor
    made = dict(Posterize=math.ceil, Solarize=math.floor, SolarizeAdd=math.floor)
    made |= dict.fromkeys(['ColorTransform', 'Contrast', 'Brightness', 'Sharpness'], (1.0).__add__)
    cfg = Config.fromfile(ROOT / 'configs/cls/prunet-p0_8xb256_in1k.py')
    (config,) = (step for step in cfg.train_pipeline if step.type == 'RandAugment')
    policies = TRANSFORMS.build(dict(config, magnitude_std=0)).transforms
    assert len(policies) == len(auto_augment._RAND_TRANSFORMS)
    image = np.random.RandomState(0).randint(20, 250, (40, 60, 3)).astype(np.uint8)
    for policy in policies:
        name = type(policy).__name__
        level = auto_augment.LEVEL_TO_ARG[theirs.get(name, name)]
        if level is not None:
            strength = made.get(name, float)(policy.random_magnitude())
            negated = {level(9, {})[0] for _ in range(40)}
            for value in negated:
                assert abs(value) == pytest.approx(strength), name
            assert (policy.random_negative_prob > 0) == (len(negated) == 2), name
        policy.prob = 1
        out = policy(dict(img=image.copy()))['img']
        assert out.shape == image.shape
        assert not np.array_equal(out, image), name


@by_name(IMAGENET)
def test_learning_rates_are_the_published_ones_and_norms_do_not_decay(path):
    cfg = Config.fromfile(path)
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper.optimizer).__name__ == 'RMSpropTF'
    decays = {id(p): g['weight_decay'] for g in wrapper.param_groups for p in g['params']}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (1e-5 if parameter.ndim > 1 else 0), name

    schedulers = [
        PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=wrapper, epoch_length=625))
        for config in cfg.param_scheduler
    ]
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no step of the optimizer in between
        for _ in range(cfg.train_cfg.max_epochs):
            (rate,) = {group['lr'] for group in wrapper.param_groups}
            rates.append(rate)
            for scheduler in schedulers:
                scheduler.step()
    published = {0: 1e-6, 3: 0.08 * 0.97, 100: 0.08 * 0.97**41, 449: 0.08 * 0.97**187}
    assert [rates[epoch] for epoch in published] == pytest.approx(list(published.values()))
    assert 1e-6 < rates[1] < rates[2] < rates[3] == max(rates)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size


@by_name(DISTILLED)
def test_distilling_configs_teach_with_a_teacher_of_the_published_size(path):
    cfg = Config.fromfile(path)
    published = cfg.model.teacher
    cfg.model.teacher = dict(
        type='ImageClassifier',
        backbone=dict(type='PRUNet', arch=small_arch(stride=2)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=16),
    )
    model = MODELS.build(cfg.model)
    seen = []
    model.teacher.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    samples = [DataSample().set_gt_label(label) for label in (3, 4)]
    losses = model.loss(torch.rand(2, 3, 64, 64), samples)
    sum(losses.values()).backward()
    assert set(losses) == {'loss_cls', 'loss_distill'}
    assert seen == [(2, 3, 260, 260)]
    assert all(p.grad is not None for p in model.parameters())

    timm = pytest.importorskip('timm')
    entry = timm.get_pretrained_cfg(published.model_name)
    assert entry.input_size == (3, 260, 260)
    scaled = [[255 * value for value in values] for values in (entry.mean, entry.std)]
    assert scaled[0] == pytest.approx(cfg.data_preprocessor.mean)
    assert scaled[1] == pytest.approx(cfg.data_preprocessor.std)


def test_a_config_without_a_teacher_trains_without_timm(run_python, images, tmp_path):
    root = images(['train', 'val'], '.JPEG', (300, 400), per_class=1, classes=5)
    NetworkSpec.from_dict(small_arch(stride=2)).save(tmp_path / 'small.json')
    options = [
        f'model.backbone.arch={tmp_path}/small.json',
        'model.neck.in_channels=16',
        'model.head.num_classes=5',
        'data_preprocessor.num_classes=5',
        'train_cfg.max_epochs=1',
    ]
    for loader in ('train_dataloader', 'val_dataloader'):
        options += [f'{loader}.dataset.data_root={root}', f'{loader}.batch_size=3']
        options += [f'{loader}.num_workers=0']
    code = f"""
import runpy, sys

class NoTimm:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'timm':
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, NoTimm())
config = 'configs/cls/prunet-p0_no-teacher_8xb256_in1k.py'
sys.argv = ['tools/train.py', config, '--work-dir', {str(tmp_path / 'work')!r}]
sys.argv += ['--cfg-options', *{options!r}]
runpy.run_path('tools/train.py', run_name='__main__')
"""
    result = run_python('-c', code)
    assert result.returncode == 0, result.stderr
    assert 'accuracy/top5' in result.stdout
    saved = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)
    assert saved['ema_state_dict']['steps'] == 2


def test_a_few_iterations_on_a_folder_like_cifars_lower_the_loss(images, tmp_path):
    root = images(['train', 'test'], '.jpg', (32, 32), per_class=16)
    cfg = Config.fromfile(ROOT / 'configs/cls/prunet-p0_cifar10.py')
    cfg.model.backbone.arch = small_arch(stride=1)
    cfg.model.neck.update(in_channels=16, channels=32, dropout=0)
    cfg.model.head.in_channels = 32
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.batch_size = 32
        loader.dataset.data_root = str(root)
    cfg.train_cfg.update(max_iters=20, val_interval=20)
    cfg.optim_wrapper.optimizer.lr = 0.01
    cfg.param_scheduler = None
    cfg.visualizer = cfg.vis_backends = None
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert type(runner.model.backbone) is PRUNet
    history, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(history) == 20
    assert history[-4:].mean() < 0.5 * history[:4].mean()
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() > 50
