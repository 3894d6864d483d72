import json

import pytest
import torch

from prunet_mm.deploy.network import build_network, default_part, is_detector
from prunet_mm.engine.cli import load_config
from prunet_mm.errors import CheckpointError, ConfigError, SpecError

DIGITS = 'configs/cls/prunet_digits.py'


@pytest.fixture
def config(root):
    def config(path=DIGITS, **options):
        return load_config(
            root / path, {'model.' + k.replace('__', '.'): options[k] for k in options}
        )

    return config


@pytest.fixture
def saved(config, tmp_path):
    """Save the weights of a part of the digits' classifier, changed by a function, as a file."""

    def save(change=lambda weights: weights, part='model'):
        weights = build_network(config(), part).module.state_dict()
        torch.save(dict(state_dict=change(weights)), tmp_path / 'weights.pth')
        return str(tmp_path / 'weights.pth'), weights

    return save


def same(module, weights):
    own = module.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[k], weights[k]) for k in own)


def test_weights_come_from_the_checkpoint(config, saved):
    path, weights = saved()
    network = build_network(config(), 'model', path)
    assert same(network.module, weights)
    assert network.metadata['weights'] == 'weights.pth'
    assert not network.module.training


def test_weights_of_a_distributed_training(config, saved):
    path, weights = saved(lambda weights: {f'module.{k}': v for k, v in weights.items()})
    assert same(build_network(config(), 'model', path).module, weights)


def test_a_backbone_takes_its_part_of_the_model_s_weights(config, saved):
    path, weights = saved()
    backbone = {k: v for k, v in weights.items() if k.startswith('backbone.')}
    assert same(build_network(config(), 'backbone', path).module, backbone)


def test_a_backbone_takes_weights_saved_without_a_model(config, saved):
    path, weights = saved(
        lambda weights: {k.removeprefix('backbone.'): v for k, v in weights.items()}, 'backbone'
    )
    assert same(build_network(config(), 'backbone', path).module, weights)


def renamed(old, new):
    return lambda weights: {k.replace(old, new): v for k, v in weights.items()}


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (renamed('stage2', 'stage7'), 'stage2'),
        (lambda w: w | {'head.fc.bias': torch.ones(7)}, "'head.fc.bias' has shape (7,), but"),
        (lambda w: {k: w[k] for k in w if k != 'head.fc.bias'}, "'head.fc.bias' is missing"),
        (lambda w: w | {'neck.more': torch.ones(1)}, "'neck.more' is no part of it"),
        (renamed('.', '_'), 'keys'),
        (lambda w: 'weights', 'its state_dict is a str'),
    ],
)
def test_weights_of_another_model_are_refused(config, saved, change, words):
    path, _ = saved(change)
    with pytest.raises(CheckpointError) as refusal:
        build_network(config(), 'model', path)
    assert str(refusal.value).startswith(f'{path}: ')
    assert words in str(refusal.value)


def test_the_config_s_own_weights_and_teacher_are_left_alone(config):
    cfg = config(
        'configs/cls/prunet-p0_8xb256_in1k.py',
        backbone__init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'),
    )
    assert cfg.model.teacher.pretrained
    network = build_network(cfg, 'model', size=[64])
    assert {key.split('.')[0] for key in network.module.state_dict()} == {
        'backbone',
        'neck',
        'head',
    }
    assert network.metadata['weights'] == 'random'


def test_outputs_are_those_of_the_config_by_number(config):
    cfg = config(backbone__out_indices=[1, -1])
    network = build_network(cfg, 'backbone', size=[16, 24])
    x = torch.rand(1, network.spec.in_channels, *network.size)
    last = max(network.spec.out_channels)
    assert network.outputs == ('stage1', f'stage{last}')
    assert [y.shape[1] for y in network.module(x)] == [
        network.spec.out_channels[s] for s in (1, last)
    ]
    assert json.loads(network.metadata['input_size']) == [16, 24]


def test_classifiers_and_detectors_are_exported_as_a_whole(config):
    cfg = config('configs/det/retinanet_prunet_coco.py')
    assert is_detector(cfg) and not is_detector(config())
    assert default_part(cfg) == default_part(config()) == 'model'
    headless = config()
    del headless.model['head']
    assert default_part(headless) == 'backbone'
    with pytest.raises(ConfigError, match='say --part backbone'):
        build_network(headless, 'model')


def test_classes_have_the_names_of_the_checkpoint_or_the_data(config, saved):
    assert build_network(config(), 'model').usage.classes == tuple('0123456789')
    names = [f'number {digit}' for digit in range(10)]
    path, weights = saved()
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=names))), path)
    assert build_network(config(), 'model', path).usage.classes == tuple(names)
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=names[1:]))), path)
    assert build_network(config(), 'model', path).usage.classes == tuple('0123456789')


def test_images_that_are_too_small_are_refused(config):
    with pytest.raises(SpecError, match='images of 1 pixels: .*stride'):
        build_network(config(), 'model', size=[8, 1])


def test_another_backbone_is_refused(config):
    with pytest.raises(
        ConfigError, match='model.backbone is a ResNet, but this tool exports PRUNet'
    ):
        build_network(config(backbone=dict(_delete_=True, type='ResNet', depth=18)), 'backbone')


def test_the_config_of_a_search_is_refused(config):
    with pytest.raises(ConfigError, match='take one that trains the network it has found'):
        build_network(config('configs/search/prunet_digits.py'), 'backbone')
