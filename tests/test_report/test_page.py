import html
import json
import re
import shlex
import subprocess

import pytest

from prunet_mm.errors import SearchError
from prunet_mm.report import PAGE, write_page


@pytest.fixture
def page():
    """Make the page of some work dirs; returns its source, and its text without tags."""

    def make(*folders):
        path = folders[0] / PAGE
        write_page(folders, path)
        source = path.read_text()
        body = re.sub(r'<(style|script)>.*?</\1>', '', source, flags=re.S)
        return source, ' '.join(html.unescape(re.sub(r'<[^>]+>', ' ', body)).split())

    return make


def commands(source):
    return [html.unescape(text) for text in re.findall(r'<pre>(.*?)</pre>', source, re.S)]


def test_nothing_is_loaded_from_elsewhere(make_work_dir, page):
    source, _ = page(make_work_dir(targets_ms=(1.0, 1.5)))
    assert not re.search(r'https?:|src=|@import|url\(|<link', source)
    assert set(re.findall(r'href="(.)', source)) == {'#'}


def test_the_first_sentence_says_what_was_asked_found_and_measured(make_work_dir, page):
    _, text = page(make_work_dir())
    assert (
        'Asked for 1 ms (50% of the largest network of the space); found a network of 2 of 5'
        in text
    )
    assert 'predicted to take 0.99 ms, 99.0% of the budget, and measured at 0.9 ms (90.9%' in text
    assert 'The budget binds' in text


def test_a_search_that_had_not_converged_is_told_by_how_much(make_work_dir, page):
    folder = make_work_dir()
    assert 'converged' not in page(folder)[1]
    found = json.loads((folder / 'found.json').read_text())
    (folder / 'found.json').write_text(json.dumps(found | dict(granules=3)))
    assert 'a layer by 3 granules, where one should do' in page(folder)[1]


def test_every_decision_is_marked_and_listed(make_work_dir, page):
    source, text = page(make_work_dir())
    for told in (
        'step 30: stage1.layer1 irb_k5, candidate removed',
        'step 50: stage1.layer3, layer removed',
        'step 80: stage2.layer1 fused_irb_k3, removed in settling',
    ):
        assert source.count(f'title="{told}') >= 2  # above latency and lambda
    assert '3 decisions Pairs of hidden widths moved 1 times' in text
    assert 'exact choice of 70% of the draws; with fused_irb_k3 loss +0.0200 ± 0.0100' in text
    assert 'skips open' in text


def test_what_imitation_left_is_told(make_work_dir, page):
    folder = make_work_dir()
    first, *rows = (folder / 'history.jsonl').read_text().splitlines(keepends=True)
    event = dict(kind='imitation', layer='stage2.layer1', candidate='irb_k3', unexplained=0.125)
    first = json.dumps(json.loads(first) | dict(events=[event])) + '\n'
    (folder / 'history.jsonl').write_text(''.join([first, *rows]))
    _, text = page(folder)
    assert 'layer candidate unexplained stage2.layer1 irb_k3 12.5 %' in text
    assert '3 decisions' in text  # that it is none
    assert 'Imitated' not in page(make_work_dir())[1]


def test_a_search_that_goes_on_is_told_up_to_its_last_whole_row(make_work_dir, page):
    folder = make_work_dir(ended=False, steps=60, max_iters=200)
    with (folder / 'history.jsonl').open('a') as file:
        file.write('{"step": 61, "los')
    source, text = page(folder)
    assert 'the search is at step 60 of 200' in text
    assert 'The likeliest network at present' in text
    assert 'The budget binds' not in text
    resume = shlex.split(commands(source)[0])
    assert resume[1:] == ['tools/search.py', 'configs/search/prunet_digits.py', '--work-dir',
                          str(folder), '--resume']  # fmt: skip


def test_a_network_derived_on_the_way_is_not_the_last_word(make_work_dir, page):
    folder = make_work_dir()
    found = json.loads((folder / 'found.json').read_text())
    (folder / 'found.json').write_text(json.dumps(found | dict(step=50)))
    assert 'The likeliest network at present' in page(folder)[1]


def test_commands_work_when_pasted_also_with_spaces_in_paths(make_work_dir, page):
    folder = make_work_dir()
    (folder / 'trained').mkdir()
    (folder / 'trained/last_checkpoint').write_text('epoch 3.pth')
    source, _ = page(folder)
    seen = []
    for command in commands(source):
        shell = 'python() { printf "%s\\n" "$@"; }; ' + command
        done = subprocess.run(['bash', '-c', shell], capture_output=True, text=True, check=True)
        seen.append(done.stdout.splitlines())
    arch, train = f'model.backbone.arch={folder}/subnet.json', 'configs/cls/prunet_digits.py'
    assert seen == [
        ['tools/train.py', train, '--work-dir', f'{folder}/trained', '--cfg-options', arch],
        ['tools/benchmark_latency.py', f'{folder}/subnet.json', '--table', 'tables/my table.json',
         '--device', 'cpu'],
        ['tools/export.py', train, 'epoch 3.pth', '--out', f'{folder}/network.onnx',
         '--cfg-options', arch],
    ]  # fmt: skip


def test_what_a_trained_start_has_found_is_trained_from_the_weights_of_its_search(
    make_work_dir, page
):
    folder = make_work_dir()
    found = json.loads((folder / 'found.json').read_text())
    (folder / 'found.json').write_text(json.dumps(found | dict(trained=['head'])))
    argv = shlex.split(commands(page(folder)[0])[0])
    assert argv[argv.index('--cfg-options') + 1 :] == [
        f'model.backbone.arch={folder}/subnet.json',
        'model.backbone.init_cfg.type=SuperNet',
        f'model.backbone.init_cfg.checkpoint={folder}/searched.pth',
        'model.backbone.init_cfg.prefix=architecture.backbone.',
        'model.head.init_cfg.type=Pretrained',
        f'model.head.init_cfg.checkpoint={folder}/searched.pth',
        'model.head.init_cfg.prefix=architecture.head.',
    ]


def test_the_frontier_has_a_row_and_a_network_for_each_target(make_work_dir, page):
    _, text = page(make_work_dir(targets_ms=(1.0, 1.25, 1.5)))
    assert 'Asked for 1, 1.25, 1.5 ms (50% to 75% of the largest network of the space)' in text
    assert 'found one for each, the fastest a network of 2 of 5 layers' in text
    assert 'The frontier of 3 targets' in text
    for target in ('1', '1.25', '1.5'):
        assert f'subnet_{target}ms.json' in text


def test_several_work_dirs_are_compared(make_work_dir, page):
    one, two = make_work_dir('one'), make_work_dir('two', ended=False, seed=4)
    source, text = page(one, two)
    assert '2 searches compared' in text
    assert 'two (' in text and 'likeliest at present' in text
    assert len(re.findall('data-name="two"', source)) == 3  # latency, lambda, loss
    assert 'different tables' not in text


def test_latencies_of_different_tables_are_not_compared_silently(make_work_dir, page):
    one, two = make_work_dir('one'), make_work_dir('two')
    asked = json.loads((two / 'asked.json').read_text())
    asked['table']['device'] = 'another device'
    (two / 'asked.json').write_text(json.dumps(asked))
    assert 'Their latencies are by different tables' in page(one, two)[1]


def test_names_are_text_not_markup(make_work_dir, page):
    source, _ = page(make_work_dir('<b>&'))
    assert 'Search &lt;b&gt;&amp;' in source


def test_a_search_from_before_asked_json_is_told_without_its_space(make_work_dir, page):
    folder = make_work_dir()
    (folder / 'asked.json').unlink()
    (folder / 'found.json').unlink()
    _, text = page(folder)
    assert 'stage1.layer1' in text and '3 decisions' in text


@pytest.mark.parametrize(
    'name, content, sentence',
    [
        ('history.jsonl', None, 'holds no search: .* is missing; name'),
        ('history.jsonl', '', 'has no rows yet: .* warm-up'),
        ('history.jsonl', '{}\n', 'rows without step, .* version'),
        ('asked.json', '{', 'asked.json: damaged'),
        ('asked.json', '[]', 'asked.json: found schema_version None, expected 1'),
        ('asked.json', 'null', 'asked.json: found schema_version None'),
        ('asked.json', '{"schema_version": 9}', 'found schema_version 9, .* another version'),
        ('asked.json', '{"schema_version": 1}', 'asked.json: damaged .*space.* missing'),
        ('found.json', '[]', 'found.json: found schema_version None'),
        ('found.json', '{"schema_version": 1, "step": 5000}', 'found.json: damaged .predicted_ms'),
        ('frontier.json', '{', 'frontier.json: damaged'),
        ('frontier.json', '{"rows": []}', 'frontier.json: damaged .expected a list of rows'),
        ('frontier.json', '[1]', 'frontier.json: damaged .expected a list of rows'),
        ('frontier.json', '[{}]', 'frontier.json: damaged .a row without target_ms'),
    ],
)
def test_bad_input_is_one_sentence(make_work_dir, name, content, sentence):
    folder = make_work_dir()
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(SearchError, match=sentence):
        write_page([folder], folder / PAGE)
    assert not (folder / PAGE).exists()


def test_no_such_folder(tmp_path):
    with pytest.raises(SearchError, match='is no folder: .*history.jsonl is missing'):
        write_page([tmp_path / 'nowhere'], tmp_path / PAGE)


def test_a_long_search_stays_small(make_work_dir, page):
    stage = dict(
        width=64, stride=2, depth=4, ops=['irb', 'fused_irb'], kernels=[3, 5], max_expansion=6
    )
    space = dict(
        name='large', resolution=64, stem=dict(out_channels=32), stages=[stage] * 3,
        tail=dict(num_classes=10),
    )  # fmt: skip
    folder = make_work_dir(space=space, steps=2000, max_iters=2000)
    page(folder)
    assert (folder / PAGE).stat().st_size < 3e6


def test_the_tool_says_where_the_page_is(make_work_dir, run_python, tmp_path):
    folder = make_work_dir()
    done = run_python('tools/report.py', folder)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith(f'{folder}/report.html (')
    done = run_python('tools/report.py', folder, '--out', tmp_path / 'page.txt')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    code = 'import sys; import prunet_mm.report; print("torch" in sys.modules)'
    assert run_python('-c', code).stdout.strip() == 'False'  # so that it answers at once
