import json
import sys

import pytest


@pytest.fixture
def run_docs(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'benchmarks')
    monkeypatch.delitem(sys.modules, 'run_docs', raising=False)
    import run_docs

    return run_docs


def test_every_command_of_the_docs_can_be_run_or_has_a_reason_why_not(run_docs):
    plans = [
        run_docs.plan(page, command)
        for page in run_docs.PAGES
        for command in run_docs.commands(page)
    ]
    assert len(plans) > 50
    assert all(run or reason for run, reason in plans)
    assert sum(bool(run) for run, _ in plans) > len(plans) / 2


def test_a_word_that_stands_for_something_has_to_be_known(run_docs):
    with pytest.raises(ValueError, match='nothing is known of PICTURES'):
        run_docs.plan('page', 'python tools/infer.py x.onnx PICTURES')


def test_every_page_with_commands_is_read(run_docs, root):
    pages = ['README.md', *(f'docs/{path.name}' for path in (root / 'docs').glob('*.md'))]
    assert [p for p in pages if p not in run_docs.PAGES and list(run_docs.commands(p))] == []


def test_what_was_run_ended_well(run_docs):
    rows = json.loads(run_docs.RESULT.read_text())['results']
    assert [command for command, row in rows.items() if row.get('exit_code')] == []
