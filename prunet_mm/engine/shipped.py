"""What comes with the package: its configs by name, and its tools as commands of ``prunet``.

Both lie where OpenMMLab's wheels have theirs, in ``.mim/`` of the package; in a checkout that is a
link to ``configs/`` and ``tools/``.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from prunet_mm.errors import ConfigError
from prunet_mm.version import __version__

MIM = Path(__file__).resolve().parents[1] / '.mim'
# Names shorter than those of the files; the others are called like their file.
SHORT = {
    'build_latency_table': 'table',
    'benchmark_latency': 'benchmark',
    'predict_latency': 'predict',
    'check_dataset': 'check',
}
FOLDERS = ('cls', 'det', 'search')


def config_names() -> dict[str, Path]:
    """The shipped configs by name, such as ``cls/prunet_digits``."""
    root = (MIM / 'configs').resolve()
    paths = (path for folder in FOLDERS for path in sorted((root / folder).glob('*.py')))
    return {path.relative_to(root).with_suffix('').as_posix(): path for path in paths}


def find_config(text: str, first: str = FOLDERS[0]) -> str:
    """The path of the config that a command line names.

    Args:
        text: A path, or the name of a shipped config: ``prunet_digits``, ``det/prunet_digits``,
            ``configs/det/prunet_digits.py`` or ``prunet_mm::det/prunet_digits.py``.
        first: The folder that is meant where several have a config of this name.

    Raises:
        ConfigError: There is neither; names like it are listed.
    """
    if Path(text).is_file():
        return text
    if path := shipped_config(text, first):
        return path
    names = config_names()
    # Compared without folder and suffix, since a typing error may be in any part.
    stems = {full: full.rpartition('/')[2] for full in names}
    near = get_close_matches(Path(text).stem, set(stems.values()), n=3)
    near = [full for stem in near for full in names if stems[full] == stem]
    hint = (
        f'near ones that come with prunet_mm are {", ".join(near)}'
        if near
        else '"prunet --help" lists those that come with prunet_mm'
    )
    raise ConfigError(f'{text}: there is no such config file; {hint}')


def shipped_config(text: str, first: str = FOLDERS[0]) -> str | None:
    """The path of the shipped config that :func:`find_config` takes a name for, or None."""
    names = config_names()
    name = text.removeprefix('prunet_mm::')
    if name != text or name.startswith('configs/'):
        name = name.removeprefix('configs/').removesuffix('.py')
    full = (name, *(f'{folder}/{name}' for folder in (first, *FOLDERS)))
    return next((str(names[one]) for one in full if one in names), None)


def tools() -> dict[str, Path]:
    """The files in ``tools/`` by the command that runs each."""
    paths = sorted((MIM / 'tools').glob('**/*.py'))
    found = {SHORT.get(path.stem, path.stem.replace('_', '-')): path for path in paths}
    return dict(sorted(found.items()))


def run_tool(argv: Sequence[str]) -> None:
    """Runs ``prunet ARGV`` as if the tool's own file had been called.

    Args:
        argv: The command's name, then the tool's arguments. A file's own name will do, too.
    """
    known = tools()
    name, *arguments = argv or ['--help']
    if name in ('-h', '--help'):
        print(_usage(known))
    elif name == '--version':
        print(f'prunet_mm {__version__}')
    else:
        by_file = {path.stem: command for command, path in known.items()}
        command = by_file.get(name, name)
        if command not in known:
            near = get_close_matches(name, {*known, *by_file}, n=2) or known
            sys.exit(f'error: prunet has no command "{name}": there is {", ".join(near)}')
        sys.argv = [f'prunet {command}', *arguments]
        path = str(known[command])
        # `runpy` would put the path in the place of the command's name.
        exec(
            compile(Path(path).read_text(encoding='utf-8'), path, 'exec'),
            dict(__name__='__main__', __file__=path),
        )


def in_this_command(text: str) -> str:
    """A text for the screen, in which tools are called as the running one was.

    Where that is ``prunet search``, ``python tools/train.py`` becomes ``prunet train``: there may
    be no folder ``tools``.
    """
    if not sys.argv[0].startswith('prunet ') or 'tools/' not in text:
        return text
    names = {path.stem: command for command, path in tools().items()}
    return re.sub(
        r'(?:python )?tools/(?:\w+/)?(\w+)\.py',
        lambda found: f'prunet {names.get(found[1], found[1])}',
        text,
    )


def _usage(known: dict[str, Path]) -> str:
    rows = [f'  {command:18}{_purpose(path)}' for command, path in known.items()]
    return (
        'usage: prunet COMMAND [ARGUMENTS]\n\n' + '\n'.join(rows) + '\n\n'
        'prunet COMMAND --help tells the arguments. A config is the path of a file, or the name\n'
        f'of one that comes with the package:\n\n{_columns(list(config_names()))}'
    )


def _columns(words: list[str], width: int = 96) -> str:
    return textwrap.fill(
        ', '.join(words),
        width,
        initial_indent='  ',
        subsequent_indent='  ',
        break_on_hyphens=False,
    )


def _purpose(path: Path) -> str:
    """The first sentence of a tool's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    return re.split(r'[:.](?: |\n|$)', text, maxsplit=1)[0].replace('\n', ' ')
