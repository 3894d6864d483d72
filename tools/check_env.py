"""Print what prunet_mm finds on this machine: versions, mmcv's ops, devices and data sets.

Exits with 1 if something needed is missing, does not fit or does not import, else with 0.
"""

import argparse
import importlib
import importlib.util
import os
import platform
import runpy
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve()
# In a checkout beside the package, installed in the package's `.mim`.
PACKAGE = next(
    folder
    for folder in (HERE.parents[1] / 'prunet_mm', HERE.parents[2])
    if (folder / 'dependencies.py').exists()
)
NEEDED = ('torch', 'numpy', 'pydantic')
EXTRAS = {'torchvision': 'mm', 'mmengine': 'mm', 'mmcv': 'mm', 'mmpretrain': 'mm', 'mmdet': 'det'}
FOLDERS = {
    'CIFAR-10': ('data/cifar10', ('train/CLASS/*', 'test/CLASS/*')),
    'ImageNet': ('data/imagenet', ('train/CLASS/*.JPEG', 'val/CLASS/*.JPEG')),
    'COCO': (
        'data/coco',
        (
            'annotations/instances_train2017.json',
            'annotations/instances_val2017.json',
            'train2017/*.jpg',
            'val2017/*.jpg',
        ),
    ),
}
# One line of the report: whether it is fine (None: neither fine nor broken), what, and what is so.
Row = tuple[bool | None, str, str]


def package_rows() -> Iterator[Row]:
    """Report Python and every package with a range of versions, and whether it imports."""
    fits = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield fits, 'python', f'{platform.python_version()} ({sys.executable})'
    # By path: the package itself refuses to be imported where a version does not fit.
    dependencies = runpy.run_path(str(PACKAGE / 'dependencies.py'))
    for name in dependencies['DEPENDENCIES']:
        owners = list(dependencies['installed'](name))
        if not owners:
            if name in NEEDED:
                yield False, name, f'not installed: {install("")}'
            else:
                yield None, name, f'not installed: {install(EXTRAS[name])}'
        for owner in owners:
            verdict = 'fits' if owner.fits else f'does not fit, wanted {owner.wanted}'
            yield owner.fits, name, f'{owner.found} ({owner.distribution}), {verdict}'
        if len(owners) > 1:
            yield False, name, 'installed twice: uninstall both, then install one of them again'
        if owners and (reason := import_error(name)):
            yield False, name, f'does not import: {reason}'
    if 'mmcv' in sys.modules:
        yield ops_row()


def install(extra: str) -> str:
    """Return the command that installs what the package needs, or what an extra of it needs."""
    flag, what = ('-e ', '.') if HERE.parents[1] == PACKAGE.parent else ('', 'prunet_mm')
    return f"pip install {flag}'{what}[{extra}]'" if extra else f'pip install {flag}{what}'


def import_error(name: str) -> str | None:
    """Return the first line of what goes wrong on importing ``name``, None if nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(name)
    except Exception as error:  # a broken build may raise anything
        return f'{type(error).__name__}: {error}'.splitlines()[0]
    return None


def ops_row() -> Row:
    """Report whether mmcv's compiled ops are there and load; detection needs them."""
    if importlib.util.find_spec('mmcv._ext') is None:
        broken = False if importlib.util.find_spec('mmdet') else None
        return broken, 'mmcv ops', 'not compiled: enough for classification, not for detection'
    reason = import_error('mmcv._ext')
    return reason is None, 'mmcv ops', f'compiled, do not load: {reason}' if reason else 'compiled'


def runs_on(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """Whether a torch built for ``archs`` has code for a card of this compute capability.

    Args:
        capability: Major and minor number, (7, 0) for a V100.
        archs: As ``torch.cuda.get_arch_list()`` names them. Machine code (``sm_80``) runs on cards
            of the same major number and no lower minor one, PTX (``compute_80``) on all later ones;
            an ``a`` or ``f`` at the end (``sm_90a``) marks code for that architecture alone.
    """
    for arch in archs:
        kind, _, number = arch.partition('_')
        exact = not number.isdigit()
        number = number.rstrip('af')
        built = (int(number[:-1]), int(number[-1]))
        upwards = not exact and (kind == 'compute' or built[0] == capability[0])
        if built == capability or (upwards and built < capability):
            return True
    return False


def cpu() -> str:
    """Return the processor's name, and how many cores there are for a process."""
    try:
        from prunet_mm.timing.device import cores, cpu_name
    except ImportError:  # a version does not fit
        return f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores'
    return f'{cpu_name()}, {cores()} cores'


def device_rows() -> Iterator[Row]:
    """Report the CPU and, where torch imports, its threads and every CUDA card."""
    yield True, 'CPU', cpu()
    torch = sys.modules.get('torch')
    if torch is None:
        return
    yield True, 'torch threads', str(torch.get_num_threads())
    if not torch.cuda.is_available():
        yield None, 'CUDA', f'no card usable (torch is built for CUDA {torch.version.cuda})'
        return
    archs = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        memory = f'{card.total_memory / 2**30:.0f} GiB'
        text = f'{card.name}, {memory}, compute capability {card.major}.{card.minor}'
        if runs_on((card.major, card.minor), archs):
            yield True, f'cuda:{index}', text
        else:
            yield (
                None,
                f'cuda:{index}',
                (
                    f'{text}: this torch has no code for it (only {" ".join(archs)}), '
                    'install a build of torch for a CUDA version that still supports the card'
                ),
            )


def data_rows(root: Path) -> Iterator[Row]:
    """Report which data sets lie under ``root``, and the layout expected where one does not."""
    if importlib.util.find_spec('sklearn'):
        yield True, 'digits', '1,797 images of 8 x 8 px, in scikit-learn'
    else:
        yield None, 'digits', f'not there: {install("demo")} (they come with scikit-learn)'
    for name, (folder, layout) in FOLDERS.items():
        missing = [part for part in layout if not has_file(root / folder, part)]
        if not missing:
            yield True, name, folder
        else:
            yield None, name, 'not there, expected: ' + ', '.join(f'{folder}/{p}' for p in missing)


def has_file(folder: Path, pattern: str) -> bool:
    """Whether a file matches the pattern, in which ``CLASS`` stands for any folder."""
    return next(folder.glob(pattern.replace('CLASS', '*')), None) is not None


def report(title: str, rows: Iterable[Row]) -> bool:
    """Print one section, line by line, and return whether nothing in it is broken."""
    print(title)
    fine = True
    for good, what, text in rows:
        fine = fine and good is not False
        mark = {True: 'ok', None: '--', False: '!!'}[good]
        print(f'  {mark}  {what:<14} {text}', flush=True)
    return fine


def main() -> int:
    """Print all sections and return the exit code."""
    argparse.ArgumentParser(description=' '.join(__doc__.split())).parse_args()  # it takes nothing
    sections = {
        'Packages': package_rows(),
        'Devices': device_rows(),
        'Data sets': data_rows(Path()),
    }
    fine = [report(title, rows) for title, rows in sections.items()]
    return 0 if all(fine) else 1


if __name__ == '__main__':
    sys.exit(main())
