import sys

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

import prunet_mm
from prunet_mm.engine import cli, shipped
from prunet_mm.errors import ConfigError


@pytest.mark.parametrize(
    ('text', 'first', 'found'),
    [
        ('prunet_digits', 'cls', 'configs/cls/prunet_digits.py'),
        ('prunet_digits', 'search', 'configs/search/prunet_digits.py'),
        ('retinanet_prunet_coco', 'search', 'configs/det/retinanet_prunet_coco.py'),
        ('search/prunet_digits', 'cls', 'configs/search/prunet_digits.py'),
        ('configs/search/prunet_v100.py', 'cls', 'configs/search/prunet_v100.py'),
        ('prunet_mm::det/retinanet_r18_bccd.py', 'cls', 'configs/det/retinanet_r18_bccd.py'),
    ],
)
def test_a_shipped_config_is_found_by_name_from_any_folder(
    root, tmp_path, monkeypatch, text, first, found
):
    monkeypatch.chdir(tmp_path)
    assert shipped.find_config(text, first) == str(root / found)


@pytest.mark.parametrize('name', ['prunet_p0', 'gpunet_1', 'resnet50', 'prunet_digits.py'])
def test_networks_and_files_are_no_names_of_configs(name):
    assert shipped.shipped_config(name) is None


def test_a_file_goes_before_a_shipped_config_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'prunet_digits').write_text('')
    assert shipped.find_config('prunet_digits') == 'prunet_digits'


@pytest.mark.parametrize(
    ('text', 'hint'),
    [
        ('prunet_digit', 'near ones that come with prunet_mm are cls/prunet_digits, search/pru'),
        ('cls/retinanet_r18_bcd.py', 'are det/retinanet_r18_bccd'),
        ('prunet_digits.py', 'cls/prunet_digits'),  # a file that is missing is not another one
        ('nothing.like', '"prunet --help" lists those'),
    ],
)
def test_an_unknown_name_lists_near_ones(tmp_path, monkeypatch, text, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        shipped.find_config(text)
    assert str(raised.value).startswith(f'{text}: there is no such config file; ')
    assert hint in str(raised.value)


def test_every_tool_is_a_command_that_says_what_it_does(root, capsys):
    shipped.run_tool(['--help'])
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    purposes = {row[0]: row[1] for row in rows if len(row) == 2}
    for command, path in shipped.tools().items():
        assert path.resolve().is_relative_to(root / 'tools')
        assert len(purposes[command]) > 10, command
    assert {'search', 'train', 'test', 'table', 'benchmark', 'predict', 'export', 'check'} <= set(
        purposes
    )


def test_a_command_gets_its_arguments_and_speaks_of_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['prunet'])
    table = tmp_path / 'table.json'
    with pytest.raises(SystemExit) as stop:
        shipped.run_tool(
            ['search', 'prunet_digits', '--cfg-options', f'model.latency.table={table}']
        )
    assert stop.value.code == 2
    assert f'prunet table CONFIG --out {table}' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'near'), [('serch', 'is search'), ('tabel', 'is table')])
def test_an_unknown_command_names_near_ones(name, near):
    with pytest.raises(SystemExit) as stop:
        shipped.run_tool([name])
    assert stop.value.code.startswith(f'error: prunet has no command "{name}"')
    assert near in stop.value.code


def test_mmengine_finds_the_shipped_configs(root, tmp_path):
    prunet_mm.register_all_modules()
    cfg = get_config('prunet_mm::cls/prunet-p0_8xb256_in1k.py')  # one of metafile.yml
    assert cfg.model.backbone.arch == 'prunet_p0'
    mine = tmp_path / 'mine.py'
    mine.write_text(
        "_base_ = ['prunet_mm::cls/prunet_digits.py']\n"
        'test_dataloader = _base_.val_dataloader\n'
        'model = dict(head=dict(topk=(1, 2)))\n'
    )
    assert '_scope_' in Config.fromfile(mine).pretty_text  # of registries that we do not have
    cfg = cli.load_config(mine)
    assert '_scope_' not in cfg.pretty_text
    ours = Config.fromfile(root / 'configs/cls/prunet_digits.py')
    assert cfg.train_dataloader == ours.train_dataloader == dict(ours.train_dataloader)
