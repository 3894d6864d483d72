import pytest
from mmengine.config import Config

from prunet_mm.engine import cli
from prunet_mm.engine.from_arch import quantities
from prunet_mm.errors import ConfigError, SpecError
from prunet_mm.spec import NetworkSpec

CONFIG = 'configs/cls/timm_in1k.py'


@pytest.fixture
def lite0(root):
    return NetworkSpec.load(root / 'configs/cls/tf_efficientnet_lite0.json')


@pytest.fixture
def saved(lite0, tmp_path):
    """Save the network with other fields; returns the path."""

    def save(**fields):
        spec = NetworkSpec.from_dict(dict(lite0.to_dict(), **fields))
        spec.save(tmp_path / 'net.json')
        return str(tmp_path / 'net.json')

    return save


def load(root, **options):
    return cli.load_config(root / CONFIG, {key.replace('__', '.'): v for key, v in options.items()})


def test_the_config_has_the_values_of_its_own_network(root):
    plain = Config.fromfile(root / CONFIG)
    assert plain.pop('from_arch')
    filled = load(root)
    for part in ('model', 'data_preprocessor', 'train_dataloader', 'val_dataloader'):
        assert filled[part] == plain[part]
    assert filled.test_dataloader == filled.val_dataloader


def test_settings_follow_another_network(root, saved):
    tail = dict(features=48, features_bias=True, act='hard_swish', num_classes=7)
    images = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], crop=0.5, interpolation='bilinear')
    arch = saved(resolution=96, tail=tail, norm_eps=1e-5, preprocessing=images)
    cfg = load(root, model__backbone__arch=arch)
    neck, head = cfg.model.neck, cfg.model.head
    assert (neck.channels, neck.features, neck.features_bias, neck.act) == (
        0,
        48,
        True,
        'hard_swish',
    )
    assert neck.norm_cfg == dict(type='BN', eps=1e-5)
    assert (head.in_channels, head.num_classes, cfg.data_preprocessor.num_classes) == (48, 7, 7)
    assert cfg.data_preprocessor.mean == [1.0, 2.0, 3.0]
    how = dict(backend='pillow', interpolation='bilinear')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        _, resize, crop, _ = loader.dataset.pipeline
        assert resize == dict(type='ResizeEdge', scale=192, edge='short', **how)
        assert crop == dict(type='CenterCrop', crop_size=96)
    assert cfg.train_dataloader.dataset.pipeline[1].scale == 96
    assert 'from_arch' not in cfg  # what a work dir keeps says all by itself


def test_an_image_that_is_squashed(root, saved, lite0):
    arch = saved(preprocessing=dict(lite0.to_dict()['preprocessing'], squash=True, crop=1.0))
    resize = load(root, model__backbone__arch=arch).test_dataloader.dataset.pipeline[1]
    assert resize == dict(
        type='Resize', scale=(224, 224), backend='pillow', interpolation='bicubic'
    )


def test_what_the_command_line_says_goes_before(root, saved):
    cfg = load(root, model__backbone__arch=saved(), model__head__num_classes=3)
    assert cfg.model.head.num_classes == 3


@pytest.mark.parametrize(
    ('setting', 'quantity', 'sentence'),
    [
        ('model.neck.channels', 'width', "model.neck.channels: found 'width', expected resolution"),
        ('model.neck.chanels', 'tail.channels', 'model.neck.chanels: the config has no such place'),
        ('train_dataloader.dataset.pipeline.9.scale', 'resolution', 'has no such place'),
    ],
)
def test_a_list_that_cannot_be_followed(root, tmp_path, setting, quantity, sentence):
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = ["{root / CONFIG}"]\nfrom_arch = {{{setting!r}: {quantity!r}}}\n')
    with pytest.raises(ConfigError) as error:
        cli.load_config(path)
    assert sentence in str(error.value)


def test_networks_that_are_none_or_no_classifier(root, saved, lite0):
    with pytest.raises(SpecError, match=r'nowhere\.json'):
        load(root, model__backbone__arch='nowhere.json')
    with pytest.raises(SpecError, match='has no tail'):
        load(root, model__backbone__arch=saved(tail=None))
    assert quantities(lite0.model_copy(update=dict(preprocessing=None)))['mean'] is None
