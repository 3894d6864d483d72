import pytest

from prunet_mm.search.objective import LatencyObjective
from prunet_mm.spec import NetworkSpec

# What each tier decides, as it is called in the history
TIERS = dict(PrunodeHook='move', BlockPruningHook='candidate', LayerPruningHook='layer')


@pytest.fixture
def decided(make_search, history):
    """Run a search without some hooks; returns the kinds of decisions that it took."""

    def run(*without):
        work_dir = '-'.join(without) or 'all'
        runner = make_search(work_dir=work_dir, hooks=dict.fromkeys(without))
        runner.train()
        assert NetworkSpec.load(f'{runner.work_dir}/subnet.json').layers
        return {event['kind'] for row in history(work_dir) for event in row['events']}

    return run


def test_switching_off_any_one_tier_ends_its_decisions(decided):
    assert decided() >= set(TIERS.values())
    for tier, kind in TIERS.items():
        assert kind not in decided(tier)


def test_every_tier_can_be_used_alone(decided):
    for tier, kind in TIERS.items():
        others = set(TIERS.values()) - {kind}
        assert not others & decided(*(other for other in TIERS if other != tier))


def test_no_tier_decides_while_lambda_is_away_from_its_average(decided, monkeypatch):
    monkeypatch.setattr(LatencyObjective, 'steady', False)
    assert decided() <= {'move'}
