"""What the pictures of a search have in common: how they look and how they are saved.

matplotlib is imported when the first picture is drawn, since a search can do without. Colours are
those of Okabe and Ito, which people with any colour vision tell apart: one per op. Kernel sizes
differ in tint and dashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.engine.files import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE, GRID, GONE = '#222222', '#8a8a8a', '#dddddd', '#eeeeee'
OPS = dict(conv='#444444', ds='#56B4E9', fused_irb='#D55E00', irb='#0072B2')
OTHER_OP = '#009E73'
PINK = '#CC79A7'
DASHES = {3: '-', 5: (0, (4, 1.5)), 7: (0, (1, 1))}
TINTS = {3: 0.0, 5: 0.35, 7: 0.15}

STYLE = {
    'figure.dpi': 110,
    'savefig.dpi': 110,
    'font.size': 8,
    'text.color': INK,
    'axes.labelcolor': INK,
    'axes.edgecolor': PALE,
    'axes.linewidth': 0.7,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.titlesize': 8,
    'axes.titlelocation': 'left',
    'axes.titlepad': 4,
    'grid.color': GRID,
    'grid.linewidth': 0.5,
    'xtick.color': INK,
    'ytick.color': INK,
    'legend.frameon': False,
}


@contextmanager
def picture(path: str | Path, size: tuple[float, float], title: str, lead: str) -> Iterator[Figure]:
    """Give a figure to draw on, and save it as PNG in the end.

    It is none of pyplot's, so whoever uses that in the same process is not disturbed.

    Args:
        path: Where the PNG goes.
        size: Width and height in inches.
        title: Says what is shown.
        lead: A line under the title that says how to read it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    width, height = size
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(size)
        figure.text(0.12 / width, 1 - 0.1 / height, title, fontsize=13, weight='bold', va='top')
        figure.text(0.12 / width, 1 - 0.4 / height, lead, fontsize=8.5, va='top')
        yield figure
        save_figure(figure, path)


def line_look(candidate: str) -> dict:
    """Return how the line of a candidate such as 'irb_k3' looks: matplotlib's line properties."""
    found = re.fullmatch(r'(.+)_k(\d+)', candidate)
    op, kernel = (found[1], int(found[2])) if found else (candidate, 3)
    return dict(
        color=tinted(OPS.get(op, OTHER_OP), TINTS.get(kernel, 0.5)),
        linestyle=DASHES.get(kernel, '-.'),
        linewidth=1.4,
    )


def tinted(color: str, share: float) -> str:
    """Mix a colour such as '#0072B2' with a share of white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return '#' + ''.join(f'{round(part + (255 - part) * share):02x}' for part in parts)
