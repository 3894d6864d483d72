import json
import os
import runpy
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, DefaultScope
from PIL import Image

import prunet_mm
from prunet_mm.datasets.digits import Digits
from prunet_mm.engine.checkpoint import load_checkpoint_file

CONFIG = 'configs/cls/prunet_digits.py'
EMA = """
_base_ = '{root}/configs/cls/prunet_digits.py'
model = dict(backbone=dict(arch='{root}/configs/cls/prunet_digits.json'))
custom_hooks = [dict(type='FiniteLossHook'), dict(type='EMAHook', momentum=0.2)]
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


def classifier(root):
    prunet_mm.register_all_modules()
    cfg = Config.fromfile(root / CONFIG)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()


@pytest.fixture(scope='module')
def weights(root):
    torch.manual_seed(0)
    model = classifier(root)
    model.init_weights()
    return model.state_dict()


@pytest.fixture
def checkpoint(weights, tmp_path):
    torch.save(dict(state_dict=weights), tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


def images():
    data = Digits(split='test')
    pixels = torch.stack([torch.as_tensor(data[i]['img']) for i in range(len(data))])
    return pixels.reshape(len(data), 1, 8, 8).float()


def scores(root, weights):
    """What the network says about the test images, without any of the tool's machinery."""
    model = classifier(root)
    model.load_state_dict(weights)
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=images()))['inputs']
        return model(inputs).softmax(1)


def test_weights_averaged_in_training_are_what_is_tested(tool, root, tmp_path):
    config, work = tmp_path / 'ema.py', tmp_path / 'work'
    config.write_text(EMA.format(root=root))
    code, out, err = tool('train', config, '--work-dir', work)
    assert code == 0, err
    logs = [json.loads(line) for line in next(work.glob('*/vis_data/scalars.json')).open()]
    (validated,) = [log['accuracy/top1'] for log in logs if 'accuracy/top1' in log]

    metrics, predictions = tmp_path / 'metrics.json', tmp_path / 'new/folder/predictions.json'
    end = [work / 'epoch_1.pth', '--work-dir', tmp_path / 'test']
    code, _, err = tool('test', config, *end, '--out', metrics, '--out-item', 'metrics')
    assert code == 0, err
    assert json.loads(metrics.read_text())['accuracy/top1'] == pytest.approx(validated)

    code, _, err = tool('test', CONFIG, *end, '--out', predictions)  # a config that knows no EMA
    assert code == 0, err
    samples = json.loads(predictions.read_text())
    saved = load_checkpoint_file(work / 'epoch_1.pth')
    of_samples = torch.tensor([sample['pred_score'] for sample in samples])
    torch.testing.assert_close(of_samples, scores(root, saved['state_dict']))
    last = {k[7:]: v for k, v in saved['ema_state_dict'].items() if k.startswith('module.')}
    assert (of_samples - scores(root, last)).abs().max() > 1e-3
    assert of_samples.argmax(1).tolist() == [sample['pred_label'][0] for sample in samples]
    right = [sample['pred_label'] == sample['gt_label'] for sample in samples]
    assert 100 * sum(right) / len(right) == pytest.approx(validated)
    assert predictions.read_text().count('\n') == len(samples) + 2  # a line each


def test_tta_averages_an_image_and_its_mirror_image(tool, root, weights, checkpoint, tmp_path):
    out = tmp_path / 'out.json'
    code, _, err = tool(
        'test', CONFIG, checkpoint, '--tta', '--out', out, '--work-dir', tmp_path / 'work'
    )
    assert code == 0, err
    model = classifier(root)
    model.load_state_dict(weights)
    both = []
    with torch.no_grad():
        for pixels in (images(), images().flip(-1)):
            both.append(model(model.data_preprocessor(dict(inputs=pixels))['inputs']).softmax(1))
    found = torch.tensor([sample['pred_score'] for sample in json.loads(out.read_text())])
    torch.testing.assert_close(found, (both[0] + both[1]) / 2)


def test_predictions_are_drawn(tool, checkpoint, tmp_path):
    code, _, err = tool(
        *('test', CONFIG, checkpoint, '--work-dir', tmp_path / 'work'),
        *('--show-dir', tmp_path / 'drawn', '--interval', 200),
    )
    assert code == 0, err
    assert {path.name for path in (tmp_path / 'drawn').iterdir()} == {'0.png', '200.png'}


FOLDERS = """
_base_ = '{root}/configs/cls/prunet_digits.py'
test_dataloader = dict(
    batch_size=3,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='{data}',
        metainfo=dict(classes=tuple('0123456789')),
        pipeline=[dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')],
    ),
)
"""


@pytest.mark.parametrize('args', [[], ['--tta']])
def test_every_image_has_a_picture_of_its_own(tool, root, checkpoint, tmp_path, args):
    names = {f'{label}/{name}' for label in range(10) for name in ('1.png', '1.jpg')}
    for name in names:
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 90).save(path)
    config = tmp_path / 'folders.py'
    config.write_text(FOLDERS.format(root=root, data=tmp_path / 'data'))
    drawn = tmp_path / 'drawn'
    code, _, err = tool(
        *('test', config, checkpoint, '--work-dir', tmp_path / 'work', '--show-dir', drawn, *args)
    )
    assert code == 0, err
    pictures = {str(path.relative_to(drawn)) for path in drawn.rglob('*') if path.is_file()}
    assert pictures == {f'{name}.png' for name in names}


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        (None, 'DetectionDrawingHook'),
        ('DetVisualizationHook', 'DetectionDrawingHook'),
        ('TrackVisualizationHook', 'TrackVisualizationHook'),
    ],
)
def test_ours_draws_in_place_of_mmdets_hook(root, tmp_path, before, after):
    draw = runpy.run_path(str(root / 'tools/test.py'))['draw_predictions']
    hooks = dict(visualization=dict(type=before, score_thr=0.6)) if before else dict()
    cfg = Config(dict(default_scope='mmdet', default_hooks=hooks))
    options = dict(show=False, show_dir=str(tmp_path / 'new/drawn'), interval=3, wait_time=1.0)
    draw(cfg, Config(options))
    found = cfg.default_hooks.visualization
    assert (found.type, found.draw, found.interval) == (after, True, 3)
    assert found.get('score_thr') == (0.6 if before else None)
    assert HOOKS.get('DetectionDrawingHook')
    assert (tmp_path / 'new/drawn').is_dir()


@pytest.fixture
def refused_files(weights, tmp_path):
    """Save a checkpoint that cannot be tested, by name; returns its path."""
    head, first = 'head.fc.weight', next(iter(weights))

    def save(name):
        path = tmp_path / f'{name}.pth'
        contents = {
            'of other classes': weights
            | {head: torch.zeros(7, 48), 'head.fc.bias': torch.zeros(7)},
            'without the head': {k: v for k, v in weights.items() if not k.startswith('head.')},
            'without a layer': {k: v for k, v in weights.items() if k != first},
            'of a larger backbone': weights | {'backbone.stage9.0.weight': torch.zeros(1)},
            'with a second head': weights | {'second.fc.weight': torch.zeros(1)},
            'of another width': weights | {first: torch.zeros(3, 3)},
            'of nvidia': {'module.network.stem.0.0.weight': torch.zeros(1)},
            'of a search': {f'architecture.{k}': v for k, v in weights.items()},
            'empty': {},
        }
        if name == 'damaged':
            torch.save(dict(state_dict=weights), path)
            path.write_bytes(path.read_bytes()[:5000])
        elif name in contents:
            torch.save(dict(state_dict=contents[name]), path)
        return path

    return save


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('missing', 'there is no such checkpoint'),
        ('damaged', 'it is damaged, incomplete, or not a checkpoint'),
        ('of other classes', 'has shape (7, 48), but the model (10, 48)'),
        ('without the head', "'head.fc.weight' is missing, and so are 1 more keys"),
        ('without a layer', 'is missing'),
        ('of a larger backbone', "'backbone.stage9.0.weight' is no part of it"),
        ('with a second head', "'second.fc.weight' is no part of it"),
        ('of another width', 'has shape (3, 3), but the '),
        ('of nvidia', 'there is tools/model_converters/gpunet_to_prunet.py'),
        ('of a search', "has keys like 'architecture.backbone."),
        ('empty', "has keys like 'none'"),
    ],
)
def test_checkpoints_of_something_else(refused, refused_files, tmp_path, name, words):
    path = refused_files(name)
    sentence = refused(path, '--work-dir', tmp_path / 'work', name='test', config=CONFIG)
    assert sentence.startswith(f'{path}: ')
    assert words in sentence


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--out', 'results.pkl'], '--out results.pkl: the file is written as .json'),
        (['--out', 'configs'], 'configs is a folder: --out takes the path of a file'),
        (['--out', 'README.md/out.json'], 'cannot make the folder of README.md/out.json'),
        (['--amp'], 'mixed precision (--amp) needs a CUDA device'),
        (['--launcher', 'pytorch'], 'RANK is not set'),
        (['--cfg-options', 'test_evaluator=None'], 'test_evaluator is missing'),
        (['--cfg-options', 'test_dataloader.dataset.data_root=nowhere'], 'nowhere is no folder'),
        (['--cfg-options', 'default_scope=mmseg', '--show-dir', 'x'], 'are drawn for mmpretrain'),
        (['--show-dir', 'README.md/x'], '--show-dir README.md/x: Not a directory'),
        (['--cfg-options', 'default_scope=mmseg', '--tta'], '--tta takes tta_model and tta_pipel'),
    ],
)
def test_command_lines_that_cannot_be(refused, checkpoint, tmp_path, monkeypatch, args, words):
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    work = ('--work-dir', tmp_path / 'work')
    assert words in refused(checkpoint, *work, *args, name='test', config=CONFIG)
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('args', [['--out-item', 'metrics'], ['--interval', '0'], ['--out-item']])
def test_flags_that_need_more(tool, args):
    code, _, err = tool('test', CONFIG, 'some.pth', *args)
    assert code == 2
    assert args[0] in err.splitlines()[-1]


def test_ctrl_c_is_one_line(root, checkpoint, tmp_path):
    out = tmp_path / 'out.json'
    options = ['test_dataloader.batch_size=1', 'default_hooks.logger.interval=1']
    process = subprocess.Popen(
        [sys.executable, 'tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'work']
        + ['--out', out, '--cfg-options', *options],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    )
    for line in process.stdout:
        if line.startswith('testing'):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == 'interrupted'
    assert 'Traceback' not in err
    assert not out.exists()


@pytest.mark.parametrize('name', ['train', 'test'])
def test_help_imports_no_torch(run_python, name):
    code = (
        'import runpy, sys\n'
        f'sys.argv = ["{name}.py", "--help"]\n'
        'try:\n'
        f'    runpy.run_path("tools/{name}.py", run_name="__main__")\n'
        'finally:\n'
        '    print("torch" in sys.modules, "mmengine" in sys.modules)\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('False False\n')
