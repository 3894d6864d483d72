from types import SimpleNamespace

import pytest
import torch

from prunet_mm.engine.loss_hook import FiniteLossHook
from prunet_mm.errors import PrunetError

RUNNER = SimpleNamespace(iter=6, work_dir='work')


@pytest.mark.parametrize('value', [float('nan'), float('inf'), torch.tensor(float('-inf'))])
def test_stops_and_names_step_and_term(value):
    outputs = dict(loss=torch.tensor(float('nan')), loss_cls=torch.tensor(1.0), loss_box=value)
    with pytest.raises(PrunetError, match='loss_box is .* at step 7;'):
        FiniteLossHook().after_train_iter(RUNNER, 6, outputs=outputs)


def test_the_sum_is_named_where_it_is_all_there_is():
    with pytest.raises(PrunetError, match='loss is nan at step 7'):
        FiniteLossHook().after_train_iter(RUNNER, 6, outputs=dict(loss=torch.tensor(float('nan'))))


def test_finite_losses_and_other_outputs_pass():
    outputs = dict(loss=torch.tensor(1.0, requires_grad=True), accuracy=float('nan'))
    FiniteLossHook().after_train_iter(RUNNER, 0, outputs=outputs)
