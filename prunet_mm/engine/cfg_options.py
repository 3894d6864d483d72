"""``--cfg-options``: settings on the command line that replace those of a config.

Reads what mmengine's `DictAction` reads, and beyond it keeps paths as they are, while that one
drops blanks and splits at commas. Imports neither torch nor mmengine before it is needed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prunet_mm.errors import ConfigError, one_line

if TYPE_CHECKING:
    from mmengine.config import Config

MOST = 8  # places that an error names
_CLOSING = {'(': ')', '[': ']'}
# What is read of a config: the arguments of mmengine's Runner, whose import takes seconds, and what
# it and we read beside these.
ARGUMENTS = {
    *('auto_scale_lr', 'custom_hooks', 'data_preprocessor', 'default_hooks', 'default_scope'),
    *('env_cfg', 'experiment_name', 'launcher', 'load_from', 'log_level', 'log_processor', 'model'),
    *('optim_wrapper', 'param_scheduler', 'randomness', 'resume', 'visualizer', 'work_dir'),
    *(f'{part}_{what}' for part in ('train', 'val', 'test') for what in ('cfg', 'dataloader')),
    *('val_evaluator', 'test_evaluator'),
}
_READ = ARGUMENTS | {
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters'),
    *('model_wrapper_cfg', 'sync_bn', 'tta_model', 'tta_pipeline'),
    *('data_layout', 'torch_threads', 'train_config'),
}


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options``, with which a command line changes the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='settings that replace those of the config: key=value, a.b=value, key="[a,b]"; '
        'what has a slash in it is one path, and what is in quotes one text: key=\'"a, b"\'',
    )


class _Options(argparse.Action):
    """Collects ``key=value`` arguments in a dict."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, separator, value = text.partition('=')
            if not separator or not all(key.split('.')):
                parser.error(f'{option_string} takes KEY=VALUE, not {text!r}')
            try:
                options[key] = parse(value)
            except ValueError as error:
                parser.error(f'{option_string} {text}: {error}')
        setattr(namespace, self.dest, options)


def parse(text: str) -> Any:
    """The value that a text stands for.

    Python's literals are what they are in Python. Names in lists and tuples need no quotes, commas
    make a list also without brackets; but not in what has a slash, since that is a path.

    Raises:
        ValueError: Brackets or quotes in a list do not match.
    """
    text = text.strip()
    first, last = text[:1], text[-1:]
    if first and first in '"\'[({':
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    if first in _CLOSING and last == _CLOSING[first]:
        values = [parse(part) for part in _parts(text[1:-1])]
        return tuple(values) if first == '(' else values
    if ',' in text and '/' not in text and os.sep not in text:
        return [parse(part) for part in _parts(text)]
    return _scalar(text)


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {'true': True, 'false': False}.get(text.lower(), None if text == 'None' else text)


def _parts(text: str) -> Iterator[str]:
    """Splits at the commas that are outside of brackets and quotes."""
    start, quote, expected = 0, '', []
    for index, char in enumerate(text):
        if quote or char in '"\'':
            quote = '' if char == quote else quote or char
        elif char in _CLOSING:
            expected.append(_CLOSING[char])
        elif char in _CLOSING.values():
            if not expected or expected.pop() != char:
                raise ValueError(f'{char!r} closes nothing: check brackets and quotes')
        elif char == ',' and not expected:
            yield text[start:index]
            start = index + 1
    if quote or expected:
        raise ValueError(f'{quote or expected[-1]!r} is missing: check brackets and quotes')
    if text[start:].strip():  # nothing comes after the last comma, as in Python
        yield text[start:]


def merge(cfg: Config, options: Mapping[str, Any], name: str) -> None:
    """Replaces settings of a config.

    Args:
        cfg: The config; changed in place.
        options: The new values, by dotted name.
        name: What errors call the config.

    Raises:
        ConfigError: An option does not fit into the config, or changes nothing that anything reads:
            a variable of the config, whose value stands elsewhere by now, or a misspelt key.
    """
    for key in options:
        if key.partition('.')[0] not in _READ:
            raise ConfigError(f'--cfg-options {key}: {_why_not(cfg, key)}')
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
        raise ConfigError(f'--cfg-options do not fit {name}: {one_line(error)}') from error


def _why_not(cfg: Config, key: str) -> str:
    variable, _, rest = key.partition('.')
    if variable not in cfg:
        close = difflib.get_close_matches(variable, _READ, n=1)
        hint = f'; perhaps {close[0]} is meant' if close else ''
        return f'nothing reads {variable}{hint}'
    used = {top: cfg[top] for top in cfg if top in _READ}
    places = [f'{place}.{rest}'.rstrip('.') for place in _holders(used, cfg[variable])]
    problem = (
        f'changes nothing, since {variable} is a variable of the config, and its value was put '
        'where it is used when the config was read'
    )
    where = ', '.join(places[:MOST]) or 'what was made of it'
    where += f' and {len(places) - MOST} more' * (len(places) > MOST)
    return f'{problem}: set {where} instead'


def _holders(value: Any, wanted: Any, path: str = '') -> Iterator[str]:
    """Yields the dotted paths of what equals a value or, of texts, begins with it."""
    if path and (value == wanted or (isinstance(wanted, str) and _begins(value, wanted))):
        yield path
        return
    items = value.items() if isinstance(value, Mapping) else ()
    for key, inner in items or (enumerate(value) if isinstance(value, (list, tuple)) else ()):
        yield from _holders(inner, wanted, f'{path}.{key}'.lstrip('.'))


def _begins(value: Any, start: str) -> bool:
    return '/' in start and isinstance(value, str) and value.startswith(start)
