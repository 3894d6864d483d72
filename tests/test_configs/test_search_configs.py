"""Every search config describes a space that is possible, with a head that fits it."""

from pathlib import Path

import pytest
from mmengine.config import Config

from prunet_mm.latency import LatencyTable
from prunet_mm.models.prunet import load_arch
from prunet_mm.spec import SearchSpace, load_zoo

ROOT = Path(__file__).parents[2]
AROUND = [ROOT / f'configs/search/{name}.py' for name in ('lite0_bccd', 'prunet-p1_coco')]
DETECTION = [ROOT / 'configs/search/prunet_digits_det.py', *AROUND]
CLASSIFICATION = sorted({*(ROOT / 'configs/search').glob('*.py')} - {*DETECTION})


@pytest.mark.parametrize('path', CLASSIFICATION, ids=lambda path: path.stem)
def test_model_and_space_belong_together(path):
    config = Config.fromfile(path)
    space = SearchSpace.from_dict(config.space)
    architecture = config.model.architecture
    assert architecture.backbone.space == config.space
    assert architecture.head.num_classes == space.tail.num_classes
    width = space.stages[-1].width
    assert architecture.head.in_channels == (space.tail.channels or width)
    assert architecture.neck.get('in_channels', width) == width


@pytest.mark.parametrize('path', DETECTION, ids=lambda path: path.stem)
def test_what_is_searched_in_a_detector_is_trained_in_the_same_one(path):
    config = Config.fromfile(path)
    training = Config.fromfile(ROOT / config.train_config)
    searched, trained = config.model.architecture, training.model
    supernet, network = searched.pop('backbone'), trained.pop('backbone')
    if path in AROUND:  # the detector has been trained, so that its parts start from a checkpoint
        starts = {part.pop('init_cfg').checkpoint for part in (searched.neck, searched.bbox_head)}
        assert starts == {supernet.init_cfg.checkpoint}
        trained.neck.pop('init_cfg', None), trained.bbox_head.pop('init_cfg', None)
    assert searched == trained
    assert config.train_dataloader.dataset == training.train_dataloader.dataset
    assert supernet.space == config.space
    assert list(supernet.out_indices) == list(network.out_indices)
    space = SearchSpace.from_dict(config.space)
    widths = [space.stages[stage - 1].width for stage in supernet.out_indices]
    assert searched.neck.in_channels == widths
    spec = load_arch(network.arch)
    fitted = dict(resolution=space.resolution, tail=space.tail)
    fitted |= dict(layers=[one for one in spec.layers if one.stage <= len(space.stages)])
    assert space.why_not(spec.model_copy(update=fitted)) is None


def test_the_table_that_comes_with_the_package_has_what_is_around_prunet_p1():
    config = Config.fromfile(ROOT / 'configs/search/prunet-p1_coco.py')
    space = SearchSpace.from_dict(config.space)
    LatencyTable.load(config.model.latency.table).require(space.block_keys())


def test_the_v100_space_contains_the_released_prunets():
    space = SearchSpace.from_dict(Config.fromfile(ROOT / 'configs/search/prunet_v100.py').space)
    for name in ('prunet_p0', 'prunet_p1'):
        assert space.why_not(load_zoo(name)) is None
