import getpass
import os
import re
import signal
import sys
import time

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from prunet_mm.engine import cli
from prunet_mm.errors import ConfigError, SpecError


def failing(error, cause=None):
    def main():
        raise error from cause

    return main


def test_bad_input_is_one_line_on_stderr_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.run(failing(SpecError('layers[2].kernel: expected an odd number')))
    assert exit.value.code == 2
    assert capsys.readouterr().err == 'error: layers[2].kernel: expected an odd number\n'


def test_the_name_of_a_file_that_is_no_text_is_told(capsys):
    with pytest.raises(SystemExit):
        cli.run(failing(SpecError(os.fsdecode(b'caf\xe9.jpg: is a file of zero bytes'))))
    assert capsys.readouterr().err == 'error: caf\\udce9.jpg: is a file of zero bytes\n'


def test_ctrl_c_is_one_line_and_exit_code_130(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.run(failing(KeyboardInterrupt('go on by --resume')))
    assert exit.value.code == 130
    assert capsys.readouterr().err == 'go on by --resume\n'


def test_a_user_whom_the_system_does_not_know_gets_a_name(monkeypatch):
    """As in a container; torch asks for it."""
    pwd = pytest.importorskip('pwd')

    def unknown(uid):
        raise KeyError(f'getpwuid(): uid not found: {uid}')

    for name in ('LOGNAME', 'USER', 'LNAME', 'USERNAME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, 'getpwuid', unknown)
    names = []
    cli.run(lambda: names.append(getpass.getuser()))
    assert names == [f'uid{os.getuid()}']


@pytest.mark.parametrize('error', [ValueError('x'), KeyError('x'), TypeError('x'), ImportError()])
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.run(failing(error))


def test_a_defect_while_bad_input_is_handled_keeps_its_traceback():
    def main():
        try:
            raise SpecError('bad')
        except SpecError:
            _ = {}['defect']

    with pytest.raises(KeyError):
        cli.run(main)


@pytest.fixture
def begun(tmp_path):
    """The config of a run that has a checkpoint."""
    (tmp_path / 'last_checkpoint').touch()
    return Config(dict(work_dir=str(tmp_path), launcher='none'))


def ended_by_sigterm(cfg):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as raised, cli.resumable(cfg):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) == before
    return str(raised.value)


def test_what_ends_a_job_counts_as_ctrl_c(begun, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/train.py', 'a config.py'])
    told = ended_by_sigterm(begun)
    assert re.fullmatch(r"terminated; to go on: \S+ tools/train.py 'a config.py' --resume", told)
    (tmp_path / 'last_checkpoint').unlink()
    assert ended_by_sigterm(begun) == (
        'terminated before there was a checkpoint: the same command with --resume begins anew'
    )


def test_of_several_processes_the_first_tells_how_to_go_on(begun, monkeypatch):
    begun.launcher = 'pytorch'  # what started it is not known
    monkeypatch.setenv('RANK', '0')
    assert ended_by_sigterm(begun) == 'terminated; to go on: the same command with --resume'
    monkeypatch.setenv('RANK', '1')
    assert ended_by_sigterm(begun) == 'terminated'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'my_config.py'
    path.write_text("optim_wrapper = dict(optimizer=dict(type='SGD', lr=1))\n")
    return path


def test_config_registers_the_package_for_itself_and_for_its_copy(config):
    cfg = cli.load_config(config)
    assert cfg.custom_imports['imports'] == ['prunet_mm']
    assert MODELS.get('mmpretrain.PRUNet')


def test_work_dir_of_the_command_line_goes_before_that_of_the_config(config):
    assert cli.load_config(config).work_dir == 'work_dirs/my_config'
    options = {'work_dir': 'of_config'}
    assert cli.load_config(config, options).work_dir == 'of_config'
    assert cli.load_config(config, options, work_dir='asked_for').work_dir == 'asked_for'


def test_options_replace_settings(config):
    cfg = cli.load_config(config, {'optim_wrapper.optimizer.lr': 2})
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=2)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('a = undefined', "NameError: name 'undefined'"),
        ('a = dict(', 'SyntaxError'),
        ("_base_ = 'no_such_base.py'", 'no_such_base.py'),
        ("custom_imports = dict(imports=['no_such_module'])", "No module named 'no_such_module'"),
    ],
)
def test_config_that_does_not_run_is_named(config, text, sentence):
    config.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as raised:
        cli.load_config(config)
    assert str(config) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_option_that_does_not_fit_is_refused(config):
    with pytest.raises(ConfigError, match='--cfg-options do not fit'):
        cli.load_config(config, {'optim_wrapper.optimizer.type.name': 'x'})


def test_what_a_command_needs_is_required(config):
    with pytest.raises(ConfigError, match='my_config.py: model is missing'):
        cli.require(cli.load_config(config), 'optim_wrapper', 'model')


def arguments(*args):
    parser = cli.config_parser('test')
    cli.add_training_arguments(parser)
    return parser.parse_args(['config.py', *args])


@pytest.fixture
def two_wrappers():
    def wrapper():
        return dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1))

    return Config(
        dict(optim_wrapper=dict(constructor='c', weights=wrapper(), architecture=wrapper()))
    )


def test_amp_applies_to_every_wrapper(two_wrappers, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    cli.apply_run_arguments(two_wrappers, arguments('--amp'))
    wrappers = cli.optim_wrappers(two_wrappers)
    assert [w.type for w in wrappers] == ['AmpOptimWrapper'] * 2
    assert [w.loss_scale for w in wrappers] == ['dynamic'] * 2


def test_amp_in_the_config_is_refused_without_cuda_too(two_wrappers, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    two_wrappers.optim_wrapper.weights.type = 'AmpOptimWrapper'
    with pytest.raises(ConfigError, match='CUDA'):
        cli.apply_run_arguments(two_wrappers, arguments())


@pytest.mark.parametrize(
    ('args', 'resume', 'load_from'),
    [((), None, None), (('--resume',), True, None), (('--resume', 'a.pth'), True, 'a.pth')],
)
def test_resume(two_wrappers, args, resume, load_from):
    cli.apply_run_arguments(two_wrappers, arguments(*args))
    assert (two_wrappers.get('resume'), two_wrappers.get('load_from')) == (resume, load_from)


def test_launcher_that_did_not_start_the_process_is_refused(two_wrappers, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ConfigError, match='--launcher pytorch: RANK is not set'):
        cli.apply_run_arguments(two_wrappers, arguments('--launcher', 'pytorch'))


@pytest.fixture
def started(monkeypatch):
    """Whether there are CUDA devices, and what a launcher tells of itself."""

    def set_up(devices, **environment):
        monkeypatch.setattr('torch.cuda.is_available', lambda: devices > 0)
        monkeypatch.setattr('torch.cuda.device_count', lambda: devices)
        for name in ('RANK', 'LOCAL_RANK', 'SLURM_PROCID', 'SLURM_LOCALID'):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return set_up


@pytest.mark.parametrize(
    ('launcher', 'environment'),
    [
        ('pytorch', dict(RANK='6', LOCAL_RANK='2')),
        ('slurm', dict(SLURM_PROCID='6', SLURM_LOCALID='2')),
    ],
)
def test_more_processes_than_devices_are_refused(two_wrappers, started, launcher, environment):
    args = arguments('--launcher', launcher)
    started(3, **environment)
    cli.apply_process_arguments(two_wrappers, args)
    assert two_wrappers.launcher == launcher
    started(2, **environment)
    with pytest.raises(ConfigError, match='3 processes or more .* has only 2 CUDA devices'):
        cli.apply_process_arguments(two_wrappers, args)


def test_slurm_without_devices_is_refused(two_wrappers, started):
    started(0, SLURM_PROCID='0')
    with pytest.raises(ConfigError, match='--launcher slurm needs a CUDA device'):
        cli.apply_process_arguments(two_wrappers, arguments('--launcher', 'slurm'))


def test_norms_over_all_processes_are_refused_without_cuda(two_wrappers, started):
    two_wrappers.sync_bn = 'torch'
    started(0, RANK='0')
    with pytest.raises(ConfigError, match='sync_bn .* needs a CUDA device'):
        cli.apply_run_arguments(two_wrappers, arguments('--launcher', 'pytorch'))
    cli.apply_run_arguments(two_wrappers, arguments())


def test_processes_on_cpus_talk_through_gloo(two_wrappers, started, monkeypatch):
    backends = []
    monkeypatch.setattr('torch.distributed.init_process_group', backends.append)
    two_wrappers.find_unused_parameters = True
    started(0, RANK='0')
    cli.apply_process_arguments(two_wrappers, arguments('--launcher', 'pytorch'))
    assert backends == ['gloo']
    wrapper = two_wrappers.model_wrapper_cfg
    assert (wrapper.device_ids, wrapper.find_unused_parameters) == (None, True)


def loaders(scope, **settings):
    cfg = Config(dict(default_scope=scope, train_dataloader=settings, val_dataloader=None))
    return cfg, cfg.train_dataloader


def test_what_a_config_says_of_its_loaders_stays(started):
    started(1)
    cfg, loader = loaders('mmdet', num_workers=2, pin_memory=False, persistent_workers=False)
    cli.set_loader_defaults(cfg)
    assert loader == dict(num_workers=2, pin_memory=False, persistent_workers=False)
    assert cfg.val_dataloader is None


@pytest.mark.parametrize(('devices', 'workers'), [(0, 0), (0, 2), (1, 0), (1, 2)])
def test_loaders_pin_memory_for_devices_and_keep_the_workers_they_have(started, devices, workers):
    started(devices)
    cfg, loader = loaders('mmpretrain', num_workers=workers, persistent_workers=True)
    cli.set_loader_defaults(cfg)
    assert loader.collate_fn == dict(type='default_collate')
    assert (loader.pin_memory, loader.persistent_workers) == (devices > 0, workers > 0)
    cli.set_loader_defaults(cfg, pin_memory=False, keep_workers=False)
    assert (loader.pin_memory, loader.persistent_workers) == (False, False)


def test_the_folder_of_a_result_is_made(tmp_path):
    cli.require_output(str(tmp_path / 'a/b/out.json'), '--out')
    assert [path.name for path in tmp_path.rglob('*')] == ['a', 'b']


@pytest.mark.parametrize(
    ('path', 'sentence'),
    [
        ('.', '. is a folder: --out takes the path of a file'),
        ('out.pkl', '--out out.pkl: the file is written as .json, so name it so'),
        ('file/out.json', 'cannot make the folder of file/out.json'),
    ],
)
def test_a_result_that_cannot_be_written(tmp_path, monkeypatch, path, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        cli.require_output(path, '--out')


def test_help_needs_no_torch(run_python):
    result = run_python(
        '-c', 'import sys, prunet_mm.engine.cli; print({"torch", "mmengine"} & set(sys.modules))'
    )
    assert result.stdout.strip() == 'set()', result.stderr
