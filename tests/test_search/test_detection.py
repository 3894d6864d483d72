"""A search inside of a detector: its steps, its tiers, and the network that comes out."""

import json
import random

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from PIL import Image

from prunet_mm.datasets.digit_scenes import CLASSES, compose_scenes
from prunet_mm.engine import cli
from prunet_mm.engine.checkpoint import use_safe_loading
from prunet_mm.errors import ConfigError
from prunet_mm.models import PRUNet
from prunet_mm.search import SearchRunner
from prunet_mm.search.imitation import imitators, learn, remaining
from prunet_mm.spec import NetworkSpec, SearchSpace

STAGES = {2: 48, 3: 96, 4: 160}  # that the neck takes, and their channels
CONFIG = 'configs/search/prunet_digits_det.py'
EMPTY = range(4)  # images without a box


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """A folder with sixteen scenes in COCO's format, the first of which show nothing."""
    folder = tmp_path_factory.mktemp('scenes')
    (folder / 'train').mkdir()
    content = dict(
        images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in enumerate(CLASSES)]
    )
    for number, scene in enumerate(compose_scenes('train', 16, 96, seed=0)):
        name = f'{number}.jpg'
        Image.fromarray(scene.image[:, :, ::-1]).save(folder / 'train' / name)
        content['images'].append(dict(id=number, file_name=name, width=96, height=96))
        for box, label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
            one = dict(image_id=number, category_id=label, bbox=box, area=box[2] * box[3])
            if number not in EMPTY:
                content['annotations'].append(one | dict(id=len(content['annotations']), iscrowd=0))
    (folder / 'annotations').mkdir()
    (folder / 'annotations/train.json').write_text(json.dumps(content))
    return folder


def narrowed(space):
    """The same stages with two layers at most, narrow ones."""
    stages = [stage | dict(depth=min(stage['depth'], 2), max_expansion=2) for stage in space.stages]
    return dict(space, stages=stages)


@pytest.fixture
def make_detector_search(quick, root, scenes, synthetic_table, tmp_path):
    """Build the runner of the config's search in small, steep as `OPTIONS` are for the digits."""
    use_safe_loading()

    def make(iters=24, **architecture):
        cfg = cli.load_config(
            root / CONFIG,
            {
                'train_dataloader.batch_size': 4,
                'train_dataloader.dataset.data_root': f'{scenes}/',
                'train_dataloader.dataset.pipeline.2.scale': (64, 64),
                'train_cfg.max_iters': iters,
                'train_cfg.warmup_iters': 3,
                'train_cfg.architecture_batch_size': 4,
                'train_cfg.architecture_interval': 1,
                'train_cfg.architecture_fraction': 0.5,
                'optim_wrapper.architecture.optimizer.lr': 0.2,
                # a price of latency that is steady and high, so that layers are not worth theirs
                'model.objective': dict(type='FixedWeight', weight=100.0),
                'custom_hooks.5': dict(
                    type='LayerPruningHook', threshold=0.95, begin=0.2, interval=2, probes=2
                ),
                'visualizer.vis_backends': [dict(type='LocalVisBackend')],
                'log_level': 'WARNING',
            },
            work_dir=str(tmp_path / 'work'),
        )
        space = narrowed(cfg.space)
        cfg.model.architecture.backbone.space = space
        cfg.model.architecture.update(architecture)
        table = synthetic_table(space)
        table.save(tmp_path / 'table.json')
        cfg.model.latency = dict(
            table=str(tmp_path / 'table.json'),
            # too little for all layers, even at their narrowest
            budget_ms=1.15 * table.predict_ms(SearchSpace.from_dict(space).smallest()),
        )
        for part in ('val', 'test'):
            for key in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{part}_{key}'] = None
        cfg.experiment_name = f'detector {tmp_path.name}'  # mmengine finds globals by this name
        return SearchRunner.from_cfg(cfg)

    return make


def changed(model, before):
    return {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_each_step_moves_its_own_parameters_alone(make_detector_search, started):
    runner = started(make_detector_search())
    model, data = runner.model, runner.train_loop.dataloader
    model.supernet.walking = True
    model.supernet.open_skips()
    model.ramp.step(10**6, model.budget.largest_ms, steady=True)  # the budget begins to count
    groups = model.supernet.architecture_parameters()
    searched = {
        kind: {n for n, p in model.named_parameters() if any(p is one for one in group)}
        for kind, group in groups.items()
    }
    weights = {n for n, _ in model.named_parameters()} - set.union(*searched.values())

    before = copied(model)
    log = model.weight_step(iter(data.probe('weights', 1)), runner.optim_wrapper['weights'])
    assert {'loss', 'loss_cls', 'loss_bbox'} <= log.keys()
    moved = changed(model, before)
    assert not moved & set.union(*searched.values())
    for part in ('backbone.stem', 'backbone.stage4', 'neck', 'bbox_head'):
        assert any(name.startswith(f'architecture.{part}.') for name in moved & weights), part

    before = copied(model)
    wrapper = runner.optim_wrapper['architecture']
    paths = [model.supernet.draw_path(random.Random(i), exploration=1.0) for i in range(4)]
    model.architecture_step(iter(data.probe('architecture', 1)), wrapper, paths)
    moved = {name for name in changed(model, before) if name.startswith('architecture.')}
    # the rest follows from scores; so no norm of neck and head has moved either
    assert moved == searched['widths']


def test_batches_without_a_box_train_to_finite_weights(make_detector_search, started):
    runner = started(make_detector_search())
    data = runner.train_loop.dataloader.dataset
    assert len(data) == 16  # none is left out
    batch = pseudo_collate([data[index] for index in EMPTY])
    assert not any(len(sample.gt_instances) for sample in batch['data_samples'])
    model = runner.model
    for part, step in dict(weights=model.weight_step, architecture=model.architecture_step).items():
        log = step(iter([batch]), runner.optim_wrapper[part])
        assert log['loss_bbox'] == 0
        assert log['loss_cls'] > 0
    assert all(p.isfinite().all() for p in model.parameters())


def test_candidates_imitate_inside_of_a_detector(make_detector_search, started):
    runner = started(make_detector_search())
    model, data = runner.model, runner.train_loop.dataloader
    assert imitators(model.supernet)  # of what would be the trained layers
    before, probe = copied(model), data.probe('architecture', 2)
    left = remaining(model, probe)
    assert not changed(model, before)
    list(learn(model, data.stream('weights', 0), 12))
    assert sum(remaining(model, probe).values()) < sum(left.values())
    places = tuple(
        f'architecture.backbone.{layer}.candidates.{name}.'
        for layer, name in imitators(model.supernet)
    )
    assert all(name.startswith(places) for name in changed(model, before))


def test_a_trained_backbone_teaches_the_search(make_detector_search, root, started):
    space = SearchSpace.from_dict(narrowed(cli.load_config(root / CONFIG).space))
    teacher = dict(type='PRUNet', arch=space.largest().to_dict(), out_indices=tuple(STAGES))
    taught = dict(type='DistillingDetector', detector='RetinaNet', teacher=teacher)
    runner = started(make_detector_search(**taught))
    model, data = runner.model, runner.train_loop.dataloader
    log = model.weight_step(iter(data.probe('weights', 1)), runner.optim_wrapper['weights'])
    parts = ('loss_cls', 'loss_bbox', 'loss_distill')
    assert log['loss'] == pytest.approx(float(sum(log[name] for name in parts)), rel=1e-5)
    batches = data.probe('architecture', 1)
    whole = model.task_loss(batches)
    model.architecture.distill_weight = 0.0
    assert model.task_loss(batches) < whole  # so choices are judged by it, too
    asked = []
    model.architecture.teacher.register_forward_hook(lambda *_: asked.append(1))
    paths = [model.supernet.draw_path(random.Random(i), 1.0) for i in range(3)]
    wrapper = runner.optim_wrapper['architecture']
    model.architecture_step(iter(data.probe('architecture', 1, step=1)), wrapper, paths)
    assert len(asked) == 1  # for all paths together
    assert not any('teacher' in name for name in model.state_dict())


def test_boxes_stay_where_they_are_when_images_change_their_size(make_detector_search, started):
    runner = started(make_detector_search())
    model, (batch,) = runner.model, runner.train_loop.dataloader.probe('weights', 1)
    resize = MODELS.build(dict(type='BatchSyncRandomResize', random_size_range=(128, 128)))
    resize._input_size = (128, 128)  # as after its first interval
    model.data_preprocessor.batch_augments = torch.nn.ModuleList([resize])
    MessageHub.get_current_instance().update_info('iter', 0)

    def boxes(samples):
        found = [sample.gt_instances.bboxes for sample in samples]
        return torch.cat([getattr(one, 'tensor', one) for one in found])

    before = boxes(batch['data_samples']).clone()
    for _ in range(2):
        images, samples = model.prepare(batch)
        assert images.shape[-2:] == (128, 128)
        torch.testing.assert_close(boxes(samples), 2 * before)
    assert torch.equal(boxes(batch['data_samples']), before)


def test_small_images_are_refused_where_there_are_boxes(make_detector_search, started):
    runner = started(make_detector_search())
    batches = iter(runner.train_loop.dataloader.probe('weights', 1))
    networks = runner.model.supernet.deal(random.Random(0), 2)
    with pytest.raises(ConfigError, match='small_images is for classifiers: found boxes'):
        runner.model.warm_up_step(batches, runner.optim_wrapper['weights'], networks, small=True)


def test_every_tier_prunes_and_the_stages_of_the_neck_stay(
    make_detector_search, history, log, tmp_path
):
    runner = make_detector_search()
    lines = log(runner)
    runner.train()
    assert any('without it the loss rises by' in line for line in lines)  # a layer was tested
    events = [event for row in history() for event in row['events']]
    kinds = {event['kind'] for event in events}
    assert kinds >= {'move', 'candidate', 'layer'}, [line for line in lines if 'stays' in line]
    spec = NetworkSpec.load(tmp_path / 'work/subnet.json')
    assert len(spec.layers) < len(runner.model.supernet.space.positions())
    assert spec.provenance['predicted_ms'] <= spec.provenance['budget_ms']
    assert STAGES.items() <= spec.out_channels.items()
    network = PRUNet(spec.to_dict(), out_indices=tuple(STAGES))
    assert network.out_channels == tuple(STAGES.values())
    assert network.out_strides == (8, 16, 32)


def test_a_detector_starts_where_the_search_stopped(make_detector_search, root, tmp_path):
    runner = make_detector_search(iters=12)
    runner.train()
    path = str(tmp_path / 'work/searched.pth')
    model = cli.load_config(root / runner.cfg.train_config).model
    model.backbone.arch = str(tmp_path / 'work/subnet.json')
    model.backbone.init_cfg = dict(type='SuperNet', checkpoint=path)
    for part in ('neck', 'bbox_head'):
        prefix = f'architecture.{part}.'
        model[part].init_cfg = dict(type='Pretrained', checkpoint=path, prefix=prefix)
    init_default_scope('mmdet')
    detector = MODELS.build(model)
    detector.init_weights()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = detector.eval()(x, mode='tensor')
        expected = runner.model.architecture.eval()(x, mode='tensor')
    for ours, theirs in zip(found, expected, strict=True):  # scores and boxes, of each level
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
