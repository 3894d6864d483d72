"""The page as a browser shows it: on a phone and on a wide screen."""

import re
import shutil
import subprocess

import pytest

from prunet_mm.report import PAGE, write_page

BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
FRAME = """<body><iframe src="{page}" style="width:{width}px;height:900px"></iframe><pre></pre>
<script>
onerror = message => document.querySelector("pre").append("error: " + message);
onload = () => {{
  const frame = document.querySelector("iframe").contentWindow, page = frame.document;
  const plot = page.querySelector(".plot"), area = plot.getBoundingClientRect();
  const at = {{clientX: area.left + area.width / 2, clientY: area.top + 9, bubbles: true}};
  plot.dispatchEvent(new frame.PointerEvent("pointermove", at));
  const text = page.querySelector(".chart output");
  document.querySelector("pre").append([
    "overflow " + (page.documentElement.scrollWidth - page.documentElement.clientWidth),
    "title " + page.title,
    "shown " + text.innerText.replaceAll("\\n", "; "),
    "display " + frame.getComputedStyle(text).display,
  ].join("\\n"));
}};
</script>"""


@pytest.mark.skipif(BROWSER is None, reason='there is no Chromium (Debian: apt install chromium)')
@pytest.mark.parametrize('width', [390, 1400])
def test_opens_fits_and_tells_values_under_the_pointer(make_work_dir, tmp_path, width):
    folder = make_work_dir()
    write_page([folder], folder / PAGE)
    frame = tmp_path / 'frame.html'
    frame.write_text(FRAME.format(page=(folder / PAGE).as_uri(), width=width))
    done = subprocess.run(
        [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--allow-file-access-from-files',
         f'--user-data-dir={tmp_path}/profile', '--virtual-time-budget=3000', '--dump-dom',
         frame.as_uri()],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    told = re.search('<pre>(.*?)</pre>', done.stdout, re.S)[1]
    assert 'overflow 0\ntitle Search a search\n' in told
    assert re.search(
        r'shown step of the search: 50\.5; expected latency: 1\.297; budget: 1\.2', told
    )
    assert 'layer removed at λ 0.500' in told  # the decision there
    assert 'display block' in told
