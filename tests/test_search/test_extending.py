"""The examples of docs/extending.md that act in a search, as they stand there."""

import pytest
import torch
from mmengine.registry import HOOKS

from prunet_mm.engine import cli
from prunet_mm.search.objective import OBJECTIVES


@pytest.fixture
def config(code_blocks, tmp_path, monkeypatch):
    """Save an example and its config as the page says; returns the loaded config."""

    def load(title, module, registry, name):
        code, text = code_blocks('extending.md', title)
        (tmp_path / f'{module}.py').write_text(code)
        (tmp_path / 'my_search.py').write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(registry.module_dict, name, raising=False)
        return cli.load_config(tmp_path / 'my_search.py')

    return load


def test_the_hook_tells_how_many_layers_are_decided(config, make_search, log):
    cfg = config('A hook', 'my_hook', HOOKS, 'DecidedHook')
    assert [hook.type for hook in cfg.custom_hooks][-2:] == ['DeriveHook', 'DecidedHook']
    runner = make_search(hooks=dict(DecidedHook=dict(interval=5)))
    lines = log(runner)
    runner.train()
    told = [line for line in lines if 'layers are decided' in line]
    assert len(told) == 5
    assert told[-1].endswith(('layers are decided', 'layers are decided\n'))


def test_the_objective_is_zero_within_the_budget_and_has_a_gradient_beyond(config, make_search):
    cfg = config('An objective', 'my_objective', OBJECTIVES, 'SquaredHinge')
    assert cfg.model.objective == dict(type='SquaredHinge', weight=20.0)
    objective = make_search(
        {'model.objective': dict(cfg.model.objective, _delete_=True)}
    ).model.objective
    assert type(objective).__name__ == 'SquaredHinge'
    budget_ms = objective.budget_ms
    assert objective.penalty(torch.tensor(0.9 * budget_ms)) == 0
    expected_ms = torch.tensor(1.1 * budget_ms, requires_grad=True)
    objective.penalty(expected_ms).backward()
    assert expected_ms.grad > 0
