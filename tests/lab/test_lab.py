"""The chapters in a real JupyterLab: everything runs, pictures show, widgets answer, in light and in dark.

Run by `make test-lab`; what it saw is in out/screenshots/. Without Chromium or Playwright it is skipped.
"""

import re
import shutil

import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from chapter_page import open_chapter
from laboratory import ROOT, chromium_path, copy_of_the_course, running_lab
from playwright.sync_api import sync_playwright

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
SCREENSHOTS = ROOT / "out" / "screenshots"


@pytest.fixture(scope="session")
def browser():
    path = chromium_path()
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium fonts-noto-cjk)")
    # Nothing but this machine: no look-ups of names, no updates.
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    root = copy_of_the_course(tmp_path_factory.mktemp("course"))
    with running_lab(root, tmp_path_factory.mktemp("jupyter")) as lab:
        yield lab


@pytest.fixture
def open_page(browser, lab):
    """Open a notebook: `with open_page("chapters/x.ipynb") as chapter`."""
    return lambda path: open_chapter(browser, lab, path)


def look(chapter, folder, theme):
    """What is wrong with the page as it is, in one theme; keeps pictures of it."""
    chapter.photograph(folder, theme)
    faults = [f"not shown: {one}" for one in chapter.pictures() if not one["shown"]]
    faults += [f"cut off: {one}" for one in chapter.cut_off()]
    return faults + [f"hard to read: {one}" for one in chapter.faint()]


def errors(cells):
    return [(cell.source, cell.errors) for cell in cells if cell.errors]


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_and_can_be_played_with(open_page, notebook):
    folder = SCREENSHOTS / notebook.stem
    shutil.rmtree(folder, ignore_errors=True)
    with open_page(f"chapters/{notebook.name}") as chapter:
        assert all(one["shown"] for one in chapter.pictures()), "as it is stored"
        cells = chapter.run_all()
        assert errors(cells) == []
        assert {"text", "output"} <= {one["where"] for one in chapter.pictures()}
        faults = {
            theme: (chapter.theme(theme), look(chapter, folder, theme))[1] for theme in ("dark", "light")
        }
        explorers = chapter.explorers()
        assert explorers
        for number, explorer in enumerate(explorers, start=1):
            explorer.box.screenshot(path=folder / f"widget-{number}-before.png")
            followed = explorer.move_each_control()
            explorer.box.screenshot(path=folder / f"widget-{number}-after.png")
            assert followed and all(followed.values()), f"the picture does not follow: {followed}"
            assert not any("no label" in name for name in followed)
        assert chapter.requests == [], "a page of this course asks other machines for nothing"
    assert faults == {"dark": [], "light": []}


# -- the test's own eyes -----------------------------------------------------------------------------------

IMPORTS = """\
import ipywidgets
from IPython.display import HTML
from minimind_edu.course import figures, widgets"""
GOOD_WIDGET = """\
def draw(n, kind, text, flag):
    figure, axes = figures.new_figure(4, 2)
    axes.plot([0, n], [0, len(text)], "-" if kind == "line" else "o", linewidth=3 if flag else 1)
    return figure

widgets.explore(
    draw, "a line of two points", n=ipywidgets.IntSlider(9, 1, 9, description="the end point"),
    kind=ipywidgets.Dropdown(options=["line", "points"]), text=ipywidgets.Text("猫"),
    flag=ipywidgets.Checkbox(False, description="bold"),
)"""
PLOT = """\
figure, axes = figures.new_figure()
axes.plot([1, 2, 3])
figures.show(figure, "three points on a line")"""
LIVE = """\
import time
live = figures.LivePlot("Training", floor=0.5, every=0.05)
for step in range(1, 21):
    live({"step": step, "loss": 3 / step + 0.5})
    time.sleep(0.02)"""
DEAD_WIDGET = "widgets.explore(lambda n: '<b>the same</b>', 'nothing moves', n=ipywidgets.IntSlider(3, 1, 9))"
FAINT = "HTML('<p style=\"color: #fff; background: #eee\">white on white</p>')"


def write_notebook(lab, name, *cells):
    """A notebook beside the chapters; cells that begin with `# ` are text."""
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = nbformat.v4.new_notebook(metadata=kernel)
    for cell in cells:
        is_text = cell.startswith(("# ", "!["))
        notebook.cells.append((nbformat.v4.new_markdown_cell if is_text else nbformat.v4.new_code_cell)(cell))
    nbformat.write(notebook, lab.root / "chapters" / f"{name}.ipynb")
    return f"chapters/{name}.ipynb"


def test_a_good_notebook_has_no_faults(open_page, lab, tmp_path):
    path = write_notebook(lab, "good", "# Title\nwords, 猫, $x^2$", IMPORTS, PLOT, LIVE, GOOD_WIDGET)
    with open_page(path) as chapter:
        cells = chapter.run_all(60)
        assert errors(cells) == [] and [cell.count for cell in cells] == [None, 1, 2, 3, 4]
        assert [one["where"] for one in chapter.pictures()] == ["output", "output", "widget"]
        for theme in ("dark", "light"):
            chapter.theme(theme)
            assert look(chapter, tmp_path, theme) == []
        (explorer,) = chapter.explorers()
        assert explorer.move_each_control() == dict.fromkeys(("the end point", "kind", "text", "bold"), True)
    assert {"light-01.png", "dark-01.png"} <= {one.name for one in tmp_path.iterdir()}


def test_faults_are_seen(open_page, lab, tmp_path):
    """One notebook with a fault of each kind."""
    missing = "![a figure that is not there](../figures/none.svg)"
    code, wide = f"{'x' * 200} = 1", "HTML('<div style=\"width: 3000px\">a wide table</div>')"
    cells = (missing, IMPORTS, code, wide, FAINT, DEAD_WIDGET, "1 / 0", "print('never')")
    path = write_notebook(lab, "bad", *cells)
    with open_page(path) as chapter:
        cells = chapter.run_all(60)
        assert errors(cells) == [("1 / 0", ["ZeroDivisionError: division by zero"])]
        faults = "\n".join(look(chapter, tmp_path, "light"))
        assert "not shown" in faults and "figure that is not there" in faults
        for cut in ("xxxx", "a wide table"):
            assert re.search(f"cut off: .*{cut}", faults)
        assert "hard to read" in faults and "white on white" in faults
        (explorer,) = chapter.explorers()
        assert list(explorer.move_each_control().values()) == [False]


def test_a_kernel_in_the_lab_reaches_this_machine_only(open_page, lab):
    path = write_notebook(lab, "net", "import socket", "socket.socket().connect(('192.0.2.1', 80))")
    with open_page(path) as chapter:
        ((_, (message,)),) = errors(chapter.run_all(60))
    assert message.startswith("PermissionError")


def test_a_notebook_that_takes_too_long_is_not_waited_for(open_page, lab):
    path = write_notebook(lab, "slow", "import time", "time.sleep(60)")
    with open_page(path) as chapter, pytest.raises(TimeoutError, match="1 of 2 cells ran in 3 s"):
        chapter.run_all(3)
