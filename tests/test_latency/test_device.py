import warnings

import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.latency.device import _cpu_name, check_device, device_name, require_device


def test_a_table_of_another_device_warns_once(make_table):
    table = make_table(device='a warned device')
    with pytest.warns(UserWarning, match='is of a warned device, but this is') as caught:
        check_device(table, 'cpu')
        check_device(table, 'cpu')
    assert len(caught) == 1


def test_a_table_of_this_device_does_not_warn(make_table):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_device(make_table(device=device_name('cpu')), 'cpu')


@pytest.mark.parametrize(
    ('device', 'sentence'),
    [
        ('gpu', 'unknown device "gpu": choose cpu, cuda or cuda:N'),
        ('cuda:x', 'unknown device "cuda:x"'),
        ('cuda:99', 'device cuda:99 was asked for, but torch sees'),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(device, sentence):
    with pytest.raises(ConfigError, match=sentence):
        require_device(device)


def test_a_cpu_is_named_with_its_model_number(tmp_path):
    path = tmp_path / 'cpuinfo'
    path.write_text('processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\n')
    assert _cpu_name(path) == 'AMD EPYC (family 25, model 17)'


def test_a_cpu_without_cpuinfo_has_a_name(tmp_path):
    assert _cpu_name(tmp_path / 'none')
