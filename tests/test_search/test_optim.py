import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from prunet_mm.errors import ConfigError


def test_every_parameter_has_one_optimiser(make_search, started):
    runner = started(make_search())
    held = [
        id(parameter)
        for wrapper in runner.optim_wrapper.values()
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    ]
    assert sorted(held) == sorted(id(parameter) for parameter in runner.model.parameters())
    assert {type(wrapper) for wrapper in runner.optim_wrapper.values()} == {OptimWrapper}


def test_groups_of_the_architecture_have_their_own_rates(make_search, started):
    scales = {'optim_wrapper.architecture.paramwise_cfg': dict(widths=0.5, logits=3.0)}
    groups = started(make_search(scales)).optim_wrapper['architecture'].optimizer.param_groups
    rates = {group['name']: group['lr'] for group in groups}
    assert rates == pytest.approx(dict(widths=0.05, logits=0.3, keep=0.1 * 2.0))


def test_bad_settings_are_refused(make_search, started):
    with pytest.raises(ConfigError, match='found width, expected some of widths, logits, keep'):
        started(make_search({'optim_wrapper.architecture.paramwise_cfg.width': 1.0}))
    with pytest.raises(ConfigError, match='entries weights and architecture .*found .*extra'):
        started(make_search({'optim_wrapper.extra': dict(optimizer=dict(type='SGD', lr=0.1))}))


def test_mixed_precision_has_a_scaler_for_each_optimiser(make_search, started, monkeypatch):
    amp = dict(type='AmpOptimWrapper', loss_scale=8.0)
    options = {
        f'optim_wrapper.{part}.{name}': value
        for part in ('weights', 'architecture')
        for name, value in amp.items()
    }
    monkeypatch.setattr(
        'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True
    )
    wrappers = started(make_search(options)).optim_wrapper
    assert {type(wrapper) for wrapper in wrappers.values()} == {AmpOptimWrapper}
    one, other = (wrapper.loss_scaler for wrapper in wrappers.values())
    assert one is not other


def test_steps_go_through_scalers(make_search, started):
    class Scaling(OptimWrapper):
        """What AmpOptimWrapper does that a step of the model has to respect."""

        def backward(self, loss, **kwargs):
            super().backward(loss * 8, **kwargs)

        def step(self, **kwargs):
            for group in self.optimizer.param_groups:
                for parameter in group['params']:
                    if parameter.grad is not None:
                        parameter.grad /= 8
            super().step(**kwargs)

    def end(kind):
        runner = started(make_search({'randomness.seed': 3}))
        runner.model.supernet.walking = True
        for part, take in (('weights', 'weight'), ('architecture', 'architecture')):
            wrapper = kind(runner.optim_wrapper[part].optimizer)
            getattr(runner.model, f'{take}_step')(
                iter(runner.train_loop.dataloader.probe(part, 1)), wrapper
            )
        return runner.model.state_dict()

    plain, scaled = end(OptimWrapper), end(Scaling)
    assert plain.keys() == scaled.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], scaled[name], rtol=1e-5, atol=1e-6)
