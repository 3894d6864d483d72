"""What every command line shares: its arguments, its config, and errors in one line.

Imports neither torch nor mmengine by itself, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.engine.cfg_options import add_cfg_options, merge
from prunet_mm.engine.explain import explain
from prunet_mm.engine.from_arch import follow_arch
from prunet_mm.engine.lock import only_run
from prunet_mm.engine.shipped import find_config, in_this_command
from prunet_mm.engine.values import check_values
from prunet_mm.errors import ConfigError, one_line

if TYPE_CHECKING:
    from mmengine.config import Config

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # what shells report for a process ended by Ctrl-C

# How the processes of a distributed run are started, with two variables that each is given then:
# one that tells that it was, and its number among those on its machine.
LAUNCHERS = {
    'pytorch': ('RANK', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def run(main: Callable[[], None]) -> None:
    """Calls ``main``; what the user can put right ends in one line on stderr, not a traceback.

    Exits with 2 after bad input and with 130 after Ctrl-C, where the text of the
    `KeyboardInterrupt`, if it has one, is the line. Anything else is a defect and propagates.
    """
    for stream in (sys.stdout, sys.stderr):  # a file may have a name that is no text
        with contextlib.suppress(AttributeError):  # in place of it may stand anything
            stream.reconfigure(errors='backslashreplace')
    _name_the_user()
    try:
        main()
    except KeyboardInterrupt as interrupt:
        _exit(str(interrupt) or 'interrupted', EXIT_INTERRUPTED)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        _exit(f'error: {sentence}', EXIT_BAD_INPUT)


def _name_the_user() -> None:
    """Names a user whom the system does not know, as containers run programs.

    Torch asks for the name, for a folder of its compiler, and fails where there is none.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ['USER'] = f'uid{os.getuid()}'


@contextlib.contextmanager
def resumable(cfg: Config) -> Iterator[None]:
    """Holds the work dir for a run, and tells whoever presses Ctrl-C the command to go on with.

    SIGTERM, by which batch systems end a run, counts as Ctrl-C.

    Raises:
        ConfigError: Another run holds the work dir, or nothing can be written there.
        KeyboardInterrupt: With that sentence.
    """
    rank = LAUNCHERS.get(cfg.get('launcher'), ('',))[0]
    first = os.environ.get(rank, '0') == '0'  # it holds the folder for all processes of the run
    try:
        with only_run(cfg.work_dir) if first else contextlib.nullcontext(), _heeding_sigterm():
            yield
    except KeyboardInterrupt as interrupt:
        if not first:
            raise
        what = str(interrupt) or 'interrupted'
        if not Path(cfg.work_dir, 'last_checkpoint').exists():
            raise KeyboardInterrupt(
                f'{what} before there was a checkpoint: the same command with --resume begins anew'
            ) from None
        if rank:  # what started this process is not known
            how = 'the same command with --resume'
            raise KeyboardInterrupt(f'{what}; to go on: {how}') from None
        path = str(cfg.get('load_from'))
        resume = {'--resume', path, f'--resume={path}'}
        argv = [argument for argument in sys.argv if argument not in resume]
        program, *arguments = argv
        words = [Path(sys.executable).name, program] if program.endswith('.py') else program.split()
        command = shlex.join([*words, *arguments, '--resume'])
        raise KeyboardInterrupt(f'{what}; to go on: {command}') from None


@contextlib.contextmanager
def _heeding_sigterm() -> Iterator[None]:
    def interrupt(*_) -> None:
        raise KeyboardInterrupt('terminated')

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(line: str, code: int) -> None:
    print(in_this_command(line), file=sys.stderr, flush=True)
    raise SystemExit(code) from None


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all commands on a config have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='a config file, or the name of a config that is shipped')
    parser.add_argument(
        '--work-dir', help='folder for logs and results; by default work_dirs/ and the config name'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', *LAUNCHERS],
        default='none',
        help='how the processes of a distributed run were started',
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='show what else the log file gets: environment, config, hooks, warnings',
    )
    # torch.distributed.launch passes the rank as an argument, torchrun in the environment.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    return parser


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the commands that train: ``--resume`` and ``--amp``."""
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on from this checkpoint, without a path from the latest one in the work dir',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='float16',
        choices=['float16', 'bfloat16'],
        help='automatic mixed precision: float16 (the default) needs a CUDA device, bfloat16 a '
        'device that computes in it, which some CPUs do',
    )


def load_config(
    path: str | os.PathLike,
    cfg_options: dict | None = None,
    work_dir: str | None = None,
    first: str = 'cls',
    register: bool = True,
) -> Config:
    """Reads a config.

    Args:
        path: The config file, or what :func:`prunet_mm.engine.shipped.find_config` knows by name.
        cfg_options: Settings that replace those of the file, by dotted name.
        work_dir: Replaces the config's, which in turn replaces ``work_dirs/<name of the file>``.
        first: Which folder of the shipped configs a name is looked for in first.
        register: Whether everything of this package is made known to mmengine, which imports torch;
            what builds nothing need not wait for it.

    Raises:
        ConfigError: The file or one of its bases is missing, does not run or has a number that
            cannot be, or an option does not fit into it or changes nothing.
    """
    path = find_config(str(path), first)
    from mmengine.config import Config

    import prunet_mm

    prunet_mm.register_all_modules() if register else prunet_mm.name_configs()
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program, so it can fail in any way
        raise ConfigError(f'{path}: cannot be read: {one_line(_first(error))}') from error
    follow_arch(cfg, cfg_options or {}, str(path))
    merge(cfg, cfg_options or {}, str(path))
    check_values(cfg, str(path))
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', Path(path).stem)
    _forget_scope(cfg._cfg_dict)
    _import_ours(cfg)
    return cfg


def _forget_scope(config: object) -> None:
    """Leaves what comes from a base ``prunet_mm::...`` to the default scope, as all our configs.

    mmengine takes the package for the name of its registries; ours are in mmpretrain's and mmdet's.
    """
    if isinstance(config, dict) and config.get('_scope_') == 'prunet_mm':
        del config['_scope_']
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, (dict, list, tuple)):
            _forget_scope(value)


def _import_ours(cfg: Config) -> None:
    """Lets the copy of the config in the work dir work in other tools than ours, too."""
    custom = cfg.get('custom_imports') or {}
    imports = custom.get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    if 'prunet_mm' not in imports:
        cfg.custom_imports = dict(custom, imports=[*imports, 'prunet_mm'])


def _first(error: Exception) -> Exception:
    """What failed: mmengine's own text about a failed import lists sys.path."""
    while isinstance(error, ImportError) and error.__context__:
        error = error.__context__
    return error


def require(cfg: Config, *keys: str) -> None:
    """Refuses a config that lacks what a command needs.

    Raises:
        ConfigError: Names the first key that is missing or None.
    """
    for key in keys:
        if cfg.get(key) is None:
            raise ConfigError(f'{cfg.filename}: {key} is missing, which {sys.argv[0]} needs')


def apply_run_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Puts ``--launcher``, ``--resume`` and ``--amp`` to work, and the config's ``torch_threads``.

    Raises:
        ConfigError: Mixed precision or ``sync_bn`` without a CUDA device, schedules that do not fit
            the training, or a launcher that cannot be, as in :func:`apply_process_arguments`.
    """
    from prunet_mm.engine.schedule_check import require_schedule

    require_schedule(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    for wrapper in optim_wrappers(cfg) if args.amp else ():
        if args.amp == 'bfloat16':
            wrapper.type = 'Bf16OptimWrapper'
            for key in ('loss_scale', 'dtype'):  # of a config that has mixed precision by itself
                wrapper.pop(key, None)
        else:
            wrapper.type = 'AmpOptimWrapper'
            wrapper.setdefault('loss_scale', 'dynamic')
    if any(wrapper.get('type') == 'AmpOptimWrapper' for wrapper in optim_wrappers(cfg)):
        require_cuda('mixed precision (--amp)')
    if args.launcher != 'none' and cfg.get('sync_bn'):
        require_cuda('sync_bn (norms over all processes)')
    apply_process_arguments(cfg, args)


def require_cuda(what: str) -> None:
    """Refuses what no CPU can do.

    Raises:
        ConfigError: There is no CUDA device.
    """
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f'{what} needs a CUDA device, and there is none here')


def apply_process_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Puts ``--launcher`` to work, and the config's ``torch_threads``.

    Raises:
        ConfigError: The launcher did not start this process, takes CUDA devices where there are
            none, or has started more processes than there are devices.
    """
    import torch

    if cfg.get('torch_threads'):
        torch.set_num_threads(cfg.torch_threads)
    cfg.launcher = args.launcher
    if args.launcher == 'none':
        return
    variable, local_rank = LAUNCHERS[args.launcher]
    if variable not in os.environ:
        raise ConfigError(
            f'--launcher {args.launcher}: {variable} is not set, so that launcher did not start '
            'this process'
        )
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if torch.cuda.is_available():
        index, count = int(os.environ.get(local_rank, 0)), torch.cuda.device_count()
        if index >= count:
            raise ConfigError(
                f'{index + 1} processes or more were started on this machine, which has only '
                f'{count} CUDA devices for them'
            )
    elif args.launcher == 'pytorch':
        # mmengine selects a CUDA device when it starts and when it wraps the model.
        torch.distributed.init_process_group('gloo')
        unused = cfg.get('find_unused_parameters', False)
        wrapper = dict(device_ids=None, broadcast_buffers=False, find_unused_parameters=unused)
        cfg.setdefault('model_wrapper_cfg', wrapper)
    else:
        require_cuda(f'--launcher {args.launcher}')


def set_loader_defaults(cfg: Config, pin_memory: bool = True, keep_workers: bool = True) -> None:
    """Sets what OpenMMLab's tools set for data loaders whose config does not say otherwise.

    Args:
        cfg: The config; the loaders for training, validation and test are changed.
        pin_memory: Whether loaders may copy batches to page-locked memory.
        keep_workers: Whether workers may live on between epochs.

    Raises:
        ConfigError: A loader's ``collate_fn`` is none.
    """
    import torch

    from prunet_mm.datasets.loader_check import collate_function

    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is None:
            continue
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', dict(type='default_collate'))
        collate_function(loader, name)
        loader.setdefault('pin_memory', torch.cuda.is_available())
        loader.setdefault('persistent_workers', True)
        loader.pin_memory &= pin_memory
        loader.persistent_workers &= keep_workers and loader.get('num_workers', 0) > 0


def require_output(path: str, option: str, suffix: str = '.json') -> None:
    """Finds out before any work is done, not after it, that a result cannot be written.

    Makes the folder of the file.

    Args:
        path: The file to write later.
        option: The argument that named it.
        suffix: What its name has to end in.

    Raises:
        ConfigError: The name ends otherwise, is that of a folder, or its folder cannot be made.
    """
    if Path(path).is_dir():
        raise ConfigError(f'{path} is a folder: {option} takes the path of a file')
    if Path(path).suffix != suffix:
        raise ConfigError(f'{option} {path}: the file is written as {suffix}, so name it so')
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'cannot make the folder of {path}: {error.strerror}') from error
    if not os.access(Path(path).parent, os.W_OK):
        raise ConfigError(f'{option} {path}: nothing can be written to this folder')


def optim_wrappers(cfg: Config) -> list[dict]:
    """The config of every optimizer wrapper: one, or several in an `OptimWrapperDict`."""
    config = cfg.optim_wrapper
    if 'optimizer' in config:
        return [config]
    return [value for value in config.values() if isinstance(value, dict)]
