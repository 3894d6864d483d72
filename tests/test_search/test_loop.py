import multiprocessing

import pytest
from mmengine.hooks import Hook

from prunet_mm.errors import ConfigError, DataError, SearchError


@pytest.fixture
def seen_images(make_search, monkeypatch):
    """Run a few steps of a search; returns the indices of the images that each part drew."""

    def run(options):
        runner = make_search({'train_cfg.max_iters': 12} | options, hooks=dict(DeriveHook=None))
        images = dict(weights=[], architecture=[])
        names = ('warm_up_step', 'weight_step', 'architecture_step')
        steps = {name: getattr(runner.model, name) for name in names}

        def spy(name):
            part = 'architecture' if name == 'architecture_step' else 'weights'

            def step(batches, *args):
                def noted():
                    for batch in batches:
                        images[part].append([s.sample_idx for s in batch['data_samples']])
                        yield batch

                return steps[name](noted(), *args)

            return step

        for name in steps:
            monkeypatch.setattr(runner.model, name, spy(name))
        runner.train()
        return runner, images

    return run


PACKED = [
    dict(type='RandomCrop', crop_size=8, padding=1),
    dict(type='PackInputs', meta_keys=('sample_idx',)),
]


def test_both_parts_draw_from_images_of_their_own(seen_images):
    runner, images = seen_images({'train_dataloader.dataset.pipeline': PACKED})
    assert [len(batch) for batch in images['weights']] == [16] * 12
    assert [len(batch) for batch in images['architecture']] == [16] * 7
    drawn = {part: {i for batch in images[part] for i in batch} for part in images}
    indices = runner.train_loop.dataloader.indices
    for part in images:
        assert drawn[part] <= set(indices[part].tolist())
    assert not drawn['weights'] & drawn['architecture']
    assert set(indices['weights']) | set(indices['architecture']) == set(range(1437))
    assert not set(indices['weights']) & set(indices['architecture'])
    assert len(indices['architecture']) == round(0.2 * 1437)


def test_accumulating_draws_more_batches_a_step(seen_images):
    options = {
        'train_dataloader.dataset.pipeline': PACKED,
        'optim_wrapper.weights.accumulative_counts': 2,
        'optim_wrapper.architecture.accumulative_counts': 3,
        'train_cfg.architecture_batch_size': 8,
    }
    runner, images = seen_images(options)
    assert [len(batch) for batch in images['weights']] == [16] * 24
    assert [len(batch) for batch in images['architecture']] == [8] * 21
    assert runner.train_loop.drawn == dict(weights=24, architecture=21)


class Watch(Hook):
    priority = 'VERY_LOW'

    def __init__(self):
        self.rows = []

    def after_train_iter(self, runner, *_, **__):
        loop = runner.train_loop
        self.rows.append((loop.stepped, loop.progress))


def test_warm_up_is_on_the_weights_alone_at_several_networks(make_search, monkeypatch):
    options = {
        'train_cfg.max_iters': 11,
        'train_cfg.warmup_iters': 5,
        'train_cfg.architecture_interval': 3,
    }
    runner = make_search(options, hooks=dict(DeriveHook=None))
    watch = Watch()
    runner.register_hook(watch)
    warmed, warm_up = [], runner.model.warm_up_step

    def warm_up_step(batches, wrapper, networks, *args):
        warmed.append(
            [{b: (b.widths[0], w, b.widths[-1]) for b, w in of.items()} for _, of in networks]
        )
        return warm_up(batches, wrapper, networks, *args)

    monkeypatch.setattr(runner.model, 'warm_up_step', warm_up_step)
    runner.train()
    assert [stepped for stepped, _ in watch.rows] == [i in (5, 8) for i in range(11)]
    assert [progress for _, progress in watch.rows[4:]] == pytest.approx([i / 6 for i in range(7)])
    assert [len(networks) for networks in warmed] == [3] * 5
    for widest, between, narrowest in warmed:
        assert all(width == most for _, width, most in widest.values())
        assert all(width == least for least, width, _ in narrowest.values())
        assert between.keys() != widest.keys()  # other choices
    assert any(least < width < most for _, one, _ in warmed for least, width, most in one.values())
    assert not any(block.fixed_width for block in runner.model.supernet.prunodes())


def test_a_share_of_the_warm_up_has_small_images(make_search):
    options = {'train_cfg.max_iters': 7, 'train_cfg.small_images': 0.5}
    runner, sizes = make_search(options, hooks=dict(DeriveHook=None)), []
    runner.model.supernet.register_forward_pre_hook(
        lambda _, inputs: sizes.append((runner.train_loop.iter, inputs[0].shape[-2:]))
    )
    runner.train()
    assert {size for step, size in sizes if step < 3} == {(4, 4)}  # the first half of five steps
    assert {size for step, size in sizes if step >= 3} == {(8, 8)}


def test_bad_settings_are_refused(make_search, started):
    for options, sentence in [
        ({'train_cfg.warmup_iters': 30}, 'warmup_iters=30 leaves nothing of max_iters=30'),
        ({'train_cfg.architecture_fraction': 1.0}, 'architecture_fraction: found 1.0'),
        ({'train_cfg.architecture_interval': 0}, 'train_cfg.architecture_interval is 0'),
        ({'train_cfg.networks': 1}, 'found networks=1, .* expected at least 2 networks'),
        ({'train_cfg.paths': 1}, 'found .*paths=1, exploration=0.1; expected .* at least 2 paths'),
        ({'train_cfg.exploration': 1.0}, 'found .*paths=4, exploration=1.0; expected'),
        ({'train_cfg.small_images': 1.0}, 'small_images: found 1.0, expected a share'),
        ({'train_cfg.ramp': dict(fall=1.0)}, 'train_cfg.ramp: found begin=0.1, fall=1.0'),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            started(make_search(options))
    with pytest.raises(DataError, match='both parts need at least one'):
        started(make_search({'train_cfg.architecture_fraction': 1e-6}))


@pytest.mark.parametrize(('part', 'step'), [('warm_up', 3), ('weight', 7), ('architecture', 8)])
def test_a_loss_that_is_not_finite_names_the_step(make_search, monkeypatch, part, step):
    runner = make_search()
    take = getattr(runner.model, f'{part}_step')

    def explode(*args):
        if runner.iter + 1 == step:
            raise SearchError('The loss is not finite: loss = nan.')
        return take(*args)

    monkeypatch.setattr(runner.model, f'{part}_step', explode)
    with pytest.raises(SearchError, match=rf'^Step {step}: The loss is not finite: loss = nan\. '):
        runner.train()


def test_workers_end_with_the_search(make_search):
    before = multiprocessing.active_children()
    runner = make_search({'train_dataloader.num_workers': 1, 'train_cfg.max_iters': 12})
    during = []

    class Count(Hook):
        def after_train_iter(self, *_, **__):
            during.append(len(multiprocessing.active_children()) - len(before))

    runner.register_hook(Count())
    runner.train()
    assert set(during) == {2}
    assert multiprocessing.active_children() == before
