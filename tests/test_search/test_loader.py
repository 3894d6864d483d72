import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.search.loader import require_loader


def test_what_a_search_does_may_be_said():
    require_loader(dict(dataset={}, batch_size=2, sampler=dict(type='InfiniteSampler')))
    require_loader(
        dict(
            batch_size=2,
            sampler=dict(type='mmengine.DefaultSampler', shuffle=True),
            drop_last=True,
        )
    )
    require_loader(dict(batch_size=2, batch_sampler=None, pin_memory=True))


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(sampler=dict(type='DefaultSampler', shuffle=False)), 'random order of its own'),
        (dict(sampler=dict(type='RepeatAugSampler')), 'sampler is .*RepeatAugSampler'),
        (dict(sampler=dict(type='DefaultSampler', seed=3)), 'sampler is .*seed'),
        (dict(drop_last=False), 'drop_last is False: .* all batches are full'),
        (
            dict(batch_sampler=dict(type='AspectRatioBatchSampler')),
            r'\.batch_sampler: a search has',
        ),
        (dict(batch_size=None), 'batch_size is missing'),
        (dict(bacth_size=3), r'\.bacth_size: a search has no such setting'),
        (dict(num_batch_per_epoch=3), r'\.num_batch_per_epoch: a search has no such setting'),
    ],
)
def test_what_it_would_pass_over_is_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        require_loader(dict(batch_size=2) | settings)


def test_a_search_is_built_only_with_what_it_honours(make_search, started):
    with pytest.raises(ConfigError, match='there is no defualt_collate'):
        started(make_search({'train_dataloader.collate_fn': dict(type='defualt_collate')}))
    with pytest.raises(ConfigError, match='all batches are full'):
        started(make_search({'train_dataloader.drop_last': False}))
