"""Which errors a user can put right, and the sentence that says how.

Imports neither torch nor mmengine, as the command line does not.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from prunet_mm.errors import PrunetError, one_line

FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
LOST_PEER = 'DistBackendError', 'DistNetworkError', 'DistStoreError'

# Where settings that contradict each other are noticed: by mmengine's runner, torch's loaders, and
# metrics of mmpretrain and mmdet.
CONTRADICTED = (
    (ValueError, 'mmengine', 'runner'),
    (RuntimeError, 'mmengine', 'runner'),
    (ValueError, 'utils', 'data'),
    (ValueError, 'evaluation', 'metrics'),
)


def explain(error: BaseException) -> str | None:
    """The sentence for an error that the user can put right, or None for a defect of ours."""
    ours = _ours(error)
    if ours is not None:
        return _last_line(ours)
    # From mmengine's logs and visualizers; our own files say more.
    if isinstance(error, OSError) and error.errno in FULL:
        return (
            f'{error.filename or "a file"} cannot be written: {error.strerror}; free some space (a '
            'training or a search goes on with --resume)'
        )
    # Raised by the registry itself rather than by what it built: the config names a type that is
    # not there, or passes it arguments that it does not take.
    if isinstance(error, (KeyError, TypeError)) and _raised_in(error, 'mmengine', 'registry'):
        first = re.split(r'[.] |, but got', str(error.args[0]))[0]
        return f'{first}: check the config'
    # It asserts that a prefix in init_cfg is one of the checkpoint's.
    if isinstance(error, AssertionError) and _raised_in(error, 'mmengine', 'runner'):
        return f'{error}: check the prefix in init_cfg'
    if any(isinstance(error, kind) and _raised_in(error, *place) for kind, *place in CONTRADICTED):
        return f'{one_line(error).partition(", but got")[0]}: check the config'
    # From mmcv's loading of images, maybe in a worker, which puts a traceback in front.
    _, unreadable, path = str(error).rpartition('failed to load image: ')
    if isinstance(error, AssertionError) and unreadable:
        return f'{path.strip()}: is not an image that can be read'
    # From OpenCV in the same place, of a file that became empty; it does not say which.
    if '!buf.empty()' in str(error):
        return 'an image file is empty: tools/check_dataset.py tells which'
    # From a norm behind so many strides that one value per channel is left.
    if isinstance(error, ValueError) and str(error).startswith('Expected more than 1 value per'):
        return (
            f'{error}: a norm cannot train on so little, so take larger batches or images, and '
            'set drop_last=True in the train_dataloader if it is the last batch that is too small'
        )
    # From torch.distributed; gloo's errors have no class of their own.
    if isinstance(error, RuntimeError) and (
        type(error).__name__ in LOST_PEER or '/gloo/' in str(error)
    ):
        first, *_ = str(error).splitlines() or ['']
        reason = re.sub(r'\A\[\S+\] ', '', first)  # without the place in gloo's source
        if late := re.search(r'Timed out waiting (\d+)ms', reason):
            return (
                f'another process of this run has not answered for {int(late[1]) / 1000:g} s: it '
                'hangs, or is slow (env_cfg.dist_cfg.timeout is how many seconds the others wait); '
                'end it, then go on with --resume'
            )
        return (
            f'another process of this run has ended or does not answer ({reason}): its own error '
            'says why; then go on with --resume'
        )
    # An ImportError without a name was raised by hand: by the check of installed versions, or for
    # what a place for curves needs.
    by_hand = isinstance(error, ImportError) and not error.name
    if by_hand and (
        _raised_in(error, 'prunet_mm') or _raised_in(error, 'mmengine', 'visualization')
    ):
        return str(error)
    return None


def _ours(error: BaseException | None) -> PrunetError | None:
    """The error, or what it was raised ``from``, if that is one of ours."""
    while error is not None and not isinstance(error, PrunetError):
        error = error.__cause__
    # Some versions of mmengine raise a built class's error again, prefixed by the class. What is
    # raised "from" another of ours says more, instead: the step at which it happened, for instance.
    while error and error.__cause__ is None and _repeats(error, error.__context__):
        error = error.__context__
    return error


def _repeats(error: PrunetError, inner: BaseException | None) -> bool:
    return type(inner) is type(error) and str(inner) in str(error)


def _last_line(error: PrunetError) -> str:
    """The sentence alone: a data loader's worker puts the text of a traceback in front of it."""
    line = str(error).strip().splitlines()[-1]
    return line.removeprefix(f'{type(error).__module__}.{type(error).__qualname__}: ')


def _raised_in(error: BaseException, *folders: str) -> bool:
    """Whether the innermost frame of the traceback is a file right inside ``folders``."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return (
        trace is not None
        and Path(trace.tb_frame.f_code.co_filename).parent.parts[-len(folders) :] == folders
    )
