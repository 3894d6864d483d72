"""Fills the template of a report and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from prunet_mm.engine.files import write_atomic
from prunet_mm.report import drawing
from prunet_mm.report.chart import area, polyline
from prunet_mm.report.source import Source
from prunet_mm.report.words import commands, decision, lead, ms, progress
from prunet_mm.search.verdict import verdict
from prunet_mm.spec import NetworkSpec
from prunet_mm.version import __version__

PAGE = 'report.html'


def write_page(work_dirs: Sequence[str | Path], path: str | Path) -> None:
    """Write the report of a search, or one that compares several.

    The file is self-contained: it loads nothing, from the network or from elsewhere.

    Args:
        work_dirs: Of searches, ended or going on; one is told in full, several are compared.
        path: Of the HTML file.

    Raises:
        SearchError: One of them holds no search, or a file of it is damaged.
        PrunetError: The file cannot be written.
    """
    sources = [Source.read(work_dir) for work_dir in work_dirs]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name('templates')),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(polyline=polyline, area=area, ms=ms)
    single = len(sources) == 1
    template = environment.get_template('search.html' if single else 'comparison.html')
    content = _single(*sources) if single else _several(sources)
    write_atomic(path, template.render(version=__version__, **content))


def _single(source: Source) -> dict:
    spec = source.spec
    return dict(
        title=f'Search {source.name}',
        source=source,
        status='' if source.ended else progress(source),
        lead=lead(source),
        verdict=verdict(source.history) if source.ended else '',
        bars=drawing.latency_bars(source),
        network=spec and drawing.network(source, spec, source.removed_layers),
        course=drawing.course(source),
        decisions=[decision(event) for event in drawing.decisions(source)],
        moves=sum(event['kind'] == 'move' for row in source.history for event in row['events']),
        widths=drawing.widths(source),
        candidates=drawing.candidates(source),
        lives=drawing.lives(source),
        colors=drawing.colors(source),
        quality=drawing.table_quality(source),
        frontier=drawing.frontier([source]),
        networks=[_of_target(source, row) for row in source.frontier],
        commands=commands(source),
    )


def _of_target(source: Source, row: dict) -> dict:
    path = source.work_dir / row['subnet']
    spec = NetworkSpec.load(path)
    return dict(row, path=path, spec=spec, network=drawing.network(source, spec, ()))


def _several(sources: Sequence[Source]) -> dict:
    devices = {source.table.describe() for source in sources if source.table}
    return dict(
        title=f'{len(sources)} searches compared',
        sources=sources,
        devices=sorted(devices),
        frontier=drawing.frontier(sources),
        overlays=drawing.overlays(sources),
        networks=[(s, s.spec and drawing.network(s, s.spec, s.removed_layers)) for s in sources],
        verdicts=[verdict(s.history) if s.ended else progress(s) for s in sources],
    )
