import argparse
import inspect
import shlex

import pytest
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from prunet_mm.engine import cfg_options
from prunet_mm.errors import ConfigError


def parsed(*texts):
    parser = argparse.ArgumentParser()
    cfg_options.add_cfg_options(parser)
    return parser.parse_args(['--cfg-options', *texts]).cfg_options


def test_the_arguments_of_a_runner_are_known():
    assert {*inspect.signature(Runner).parameters} - {'cfg'} == cfg_options.ARGUMENTS


@pytest.mark.parametrize(
    'path',
    [
        '/data/my pictures/a, b/subnet.json',
        'work dirs/[1,2]/x.pth',
        "it's/a 'quoted' one.json",
        '/data/"x"/y',
        '/data/photos (1/x.png',
        '/data/a  b',
    ],
)
def test_a_path_stays_as_it_is(path):
    assert parsed(f'load_from={path}') == dict(load_from=path)


def test_quotes_keep_a_text_together():
    assert parsed('a="x, y"', "b='[1, 2]'", 'c="3"') == dict(a='x, y', b='[1, 2]', c='3')
    assert parsed('a=["x, y", "/data/a b"]') == dict(a=['x, y', '/data/a b'])
    assert parsed('a=[/data/a b, /c]') == dict(a=['/data/a b', '/c'])


@pytest.mark.parametrize(
    'text',
    [
        *('1', '-2', '1e-3', 'true', 'False', 'None', 'SGD', 'iter_5.pth', 'a=b', ''),
        *('1,2,3', 'bbox,segm', '[a,b]', '(1,)', '[(1,2),(3,4)]', '[[a,1.5],None,true]', '[]'),
        *('[ 1, 2 ]', 'work_dirs/x/subnet.json', '/data', 'a.b.c', '0.5,', 'nan'),
    ],
)
def test_reads_what_mmengine_reads(text):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    theirs = parser.parse_args(['--cfg-options', f'key={text}']).cfg_options
    assert repr(parsed(f'key={text}')) == repr(theirs)


@pytest.mark.parametrize('text', ['key=[1,(2]', 'key=["a,b]', 'key=1,(2', '=1', 'a..b=1', 'key'])
def test_what_cannot_be_read_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        parsed(text)
    assert text.partition('=')[2] in capsys.readouterr().err


def test_a_printed_command_can_be_pasted():
    path = 'work dirs/it\'s, "mine"/subnet.json'
    (pasted,) = shlex.split(shlex.quote(f'model.backbone.arch={path}'))
    assert parsed(pasted) == {'model.backbone.arch': path}


@pytest.fixture
def cfg():
    pipeline = [dict(type='Resize', scale=(128, 128)), dict(type='Pack')]
    loader = dict(dataset=dict(data_root='data/x/', pipeline=pipeline))
    return Config(
        dict(
            data_root='data/x/',
            image_size=(128, 128),
            train_pipeline=pipeline,
            train_dataloader=loader,
            val_evaluator=dict(ann_file='data/x/val.json'),
            model=dict(backbone=dict(type='PRUNet')),
        )
    )


@pytest.mark.parametrize(
    ('key', 'sentence'),
    [
        ('data_root', 'set train_dataloader.dataset.data_root, val_evaluator.ann_file instead'),
        ('image_size', 'set train_dataloader.dataset.pipeline.0.scale instead'),
        ('train_pipeline.0.scale', 'set train_dataloader.dataset.pipeline.0.scale instead'),
        ('train_dataloadr.batch_size', 'nothing reads .*perhaps train_dataloader is meant'),
        ('colour', 'nothing reads colour'),
    ],
)
def test_an_option_that_changes_nothing_is_refused(cfg, key, sentence):
    before = cfg.to_dict()
    with pytest.raises(ConfigError, match=f'--cfg-options {key}: .*{sentence}'):
        cfg_options.merge(cfg, {key: 3}, 'config.py')
    assert cfg.to_dict() == before


def test_what_is_read_can_be_set(cfg):
    options = {'model.backbone.arch': 'prunet_p0', 'torch_threads': 1, 'load_from': 'a.pth'}
    cfg_options.merge(cfg, options, 'config.py')
    assert (cfg.model.backbone.arch, cfg.torch_threads, cfg.load_from) == ('prunet_p0', 1, 'a.pth')


@pytest.mark.parametrize(
    'options',
    [
        {'model.backbone.type.name': 1},
        {'train_dataloader.dataset.pipeline.7.scale': 1},
        {'train_dataloader.dataset.pipeline.type': 1},
        {'model': 3, 'model.backbone': 4},
    ],
)
def test_an_option_that_does_not_fit_is_refused(cfg, options):
    with pytest.raises(ConfigError, match='--cfg-options do not fit config.py'):
        cfg_options.merge(cfg, options, 'config.py')
