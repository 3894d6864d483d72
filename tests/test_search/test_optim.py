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


def test_weights_have_the_decay_of_their_kind(make_search, started):
    options = {'optim_wrapper.weights.paramwise_cfg': dict(norm_decay_mult=0, bias_decay_mult=0.5)}
    runner = started(make_search(options))
    decay = {
        id(parameter): group['weight_decay']
        for group in runner.optim_wrapper['weights'].optimizer.param_groups
        for parameter in group['params']
    }
    assert decay.keys() == {id(weight) for weight in runner.model.weight_parameters()}
    norms = [m for m in runner.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(decay[id(p)] == 0 for norm in norms for p in norm.parameters())
    head = runner.model.architecture.head.fc
    assert (decay[id(head.weight)], decay[id(head.bias)]) == (1e-4, 0.5e-4)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'weights.paramwise_cfg': dict(norm_decay=0)}, 'found norm_decay, expected some of'),
        (
            {
                'weights.optimizer': dict(type='SGD', lr=0.1, _delete_=True),
                'weights.paramwise_cfg': dict(norm_decay_mult=0),
            },
            'weights.paramwise_cfg: base_wd should not be None',
        ),
        ({'paramwise_cfg': dict(norm_decay_mult=0)}, 'one in optim_wrapper.weights and one in'),
        ({'architecture.paramwise_cfg.keep': 200.0}, 'paramwise_cfg.keep = 200 has to be below 1'),
    ],
)
def test_settings_that_cannot_be_are_refused(make_search, started, options, sentence):
    runner = make_search({f'optim_wrapper.{name}': value for name, value in options.items()})
    with pytest.raises(ConfigError, match=sentence):
        started(runner)


def test_a_keep_coefficient_that_leaps_does_not_end_the_search(make_search, started):
    runner = started(make_search({'model.architecture.backbone.sampling': 'softmax'}))
    model = runner.model
    model.supernet.open_skips()
    model.ramp.step(10**6, model.budget.largest_ms, steady=True)  # the budget begins to count
    groups = runner.optim_wrapper['architecture'].optimizer.param_groups
    (group,) = [group for group in groups if group['name'] == 'keep']
    group['lr'] = 200.0
    runner.model.objective.multiplier.fill_(100.0)  # all layers are to go
    batches = iter(runner.train_loop.dataloader.probe('architecture', 1))
    runner.model.architecture_step(batches, runner.optim_wrapper['architecture'])
    assert runner.model.supernet.expected_latency_ms() < 0  # until the hook clamps
    assert 0 < float(runner.model.objective.multiplier) < 100


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
