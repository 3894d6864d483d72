import pytest

from prunet_mm.spec import NetworkSpec

TIERS = ['PrunodeHook', 'BlockPruningHook', 'LayerPruningHook']


# Fine enough for a search that takes another way to end elsewhere
FINE = {'model.latency.budget_ratio': 0.4, 'model.objective.weight': 0.0}


@pytest.fixture
def found(make_search, space):
    """Run a search without some hooks; returns the layers of its network."""
    space['stages'] = [stage | dict(granularity=1) for stage in space['stages']]

    def run(*without):
        work_dir = '-'.join(without) or 'all'
        runner = make_search(FINE, space=space, work_dir=work_dir, hooks=dict.fromkeys(without))
        runner.train()
        return NetworkSpec.load(f'{runner.work_dir}/subnet.json').layers

    return run


def test_switching_off_any_one_tier_changes_the_network(found):
    network = found()
    assert network not in [found(tier) for tier in TIERS]


def test_every_tier_can_be_used_alone(found):
    for tier in TIERS:
        assert found(*(other for other in TIERS if other != tier))
