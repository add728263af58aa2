"""A notebook that is open in JupyterLab in a browser: run it, look at it, play with its widgets."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from laboratory import HEIGHT, WIDTH, Lab
from playwright.sync_api import Browser, Locator, Page

RUN_SECONDS = 1200
PICTURE_SECONDS = 30
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

QUIET_CHECKS = 20  # tenths of a second without work after which a picture is not expected to change any more

IS_IDLE = """() =>
    window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"""
SHOWN = "box => [...box.querySelectorAll('img')].every(image => image.complete && image.naturalWidth > 0)"
CELLS = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    return {
        status: panel.sessionContext.session?.kernel?.status ?? "none",
        cells: [...panel.content.model.cells].map(cell => ({
            kind: cell.type,
            source: cell.sharedModel.getSource(),
            count: cell.executionCount ?? null,
            outputs: cell.outputs?.toJSON() ?? [],
        })),
    };
}"""

# Every picture in view has arrived; those of Markdown come from files, others are part of the notebook.
PICTURES = """() => [...document.querySelectorAll('.jp-Notebook img')].map(image => ({
    where: image.closest('.jp-MarkdownOutput') ? 'text' :
           image.closest('.minimind-explorer') ? 'widget' : 'output',
    alt: image.alt,
    source: image.src.slice(0, 100),
    shown: image.complete && image.naturalWidth > 0,
}))"""

# Boxes whose contents are wider than they are, so that a reader would have to scroll sideways. Printed lines
# are broken where they end, and are not among them.
CUT_OFF = """() => {
    const boxes = '.jp-MarkdownOutput, .jp-OutputArea-output, .cm-scroller, .minimind-explorer, ' +
        '.minimind-picture .widget-html-content, .minimind-explorer .widget-label';
    return [...document.querySelector('.jp-Notebook').querySelectorAll(boxes)]
        .filter(box => box.scrollWidth > box.clientWidth + 2 && box.clientWidth > 0)
        .map(box => `${box.className}: ${box.scrollWidth} px in ${box.clientWidth}: ` +
             box.innerText.trim().slice(0, 80));
}"""

# Words that are nearly as dark or light as what lies behind them (WCAG's contrast ratio).
FAINT = """() => {
    const parts = text => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = element => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) {
            const [r, g, b, a = 1] = parts(getComputedStyle(at).backgroundColor);
            if (a > 0) layers.push([r, g, b, a]);
            if (a === 1) break;
        }
        return layers.reduceRight((below, [r, g, b, a]) =>
            [r, g, b].map((v, i) => v * a + below[i] * (1 - a)), [255, 255, 255]);
    };
    const faint = new Set();
    for (const box of document.querySelectorAll('.jp-MarkdownOutput, .jp-OutputArea-output')) {
        const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
            if (!text || !element.checkVisibility() || element.closest('svg, mjx-assistive-mml')) continue;
            const back = behind(element), [r, g, b, a = 1] = parts(getComputedStyle(element).color);
            const ink = [r, g, b].map((v, i) => v * a + back[i] * (1 - a));
            const [low, high] = [light(ink), light(back)].sort((x, y) => x - y);
            const ratio = (high + 0.05) / (low + 0.05);
            if (ratio < 3) faint.add(`${ratio.toFixed(1)}: ${text.slice(0, 60)}`);
        }
    }
    return [...faint];
}"""


@dataclass(frozen=True)
class Cell:
    """A cell as the page has it."""

    kind: str
    source: str
    count: int | None
    outputs: list[dict]

    @property
    def errors(self) -> list[str]:
        """What it raised."""
        return [f"{o['ename']}: {o['evalue']}" for o in self.outputs if o["output_type"] == "error"]


class ChapterPage:
    """A notebook open in JupyterLab; `open_chapter` makes one."""

    def __init__(self, page: Page, lab: Lab) -> None:
        self.page = page
        self.requests: list[str] = []  # to other machines
        page.on("request", lambda request: self._note(request.url, lab.url))

    def _note(self, url: str, home: str) -> None:
        if not url.startswith((home, home.replace("http", "ws", 1), "data:", "blob:")):
            self.requests.append(url)

    def command(self, name: str, **arguments: object) -> None:
        """Start one of JupyterLab's commands."""
        self.page.evaluate(
            "([name, arguments]) => { window.jupyterapp.commands.execute(name, arguments); }",
            [name, arguments],
        )

    def state(self) -> tuple[str, list[Cell]]:
        """What the kernel does, and the cells."""
        found = self.page.evaluate(CELLS)
        return found["status"], [Cell(**cell) for cell in found["cells"]]

    def run_all(self, seconds: float = RUN_SECONDS) -> list[Cell]:
        """Clear all outputs, run all cells, and wait for the last one, or for the first error.

        Raises:
            TimeoutError: it takes longer than `seconds`.
        """
        self.command("notebook:clear-all-cell-outputs")
        self.page.wait_for_function(
            "() => [...window.jupyterapp.shell.currentWidget.content.model.cells]"
            ".every(cell => !cell.executionCount)"
        )
        self.command("runmenu:run-all")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.page.wait_for_timeout(500)
            status, cells = self.state()
            ran = [cell.count is not None for cell in cells if cell.kind == "code" and cell.source.strip()]
            if status == "idle" and (all(ran) or any(cell.errors for cell in cells)):
                return cells
        raise TimeoutError(f"{sum(ran)} of {len(ran)} cells ran in {seconds:.0f} s; the kernel is {status}")

    def pictures(self) -> list[dict]:
        """Every picture on the page, once those that are on their way have come."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.jp-Notebook img')].every(i => i.complete)"
        )
        return self.page.evaluate(PICTURES)

    def cut_off(self) -> list[str]:
        """Boxes that are too narrow for what they hold."""
        return self.page.evaluate(CUT_OFF)

    def faint(self) -> list[str]:
        """Words that can hardly be told from their background."""
        return self.page.evaluate(FAINT)

    def theme(self, name: str) -> None:
        """Change to the light or the dark theme."""
        self.command("apputils:change-theme", theme=THEMES[name])
        is_light = str(name == "light").lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light='{is_light}']", state="attached")
        self.page.wait_for_timeout(500)  # its style sheet

    def explorers(self) -> list["ExplorerOnPage"]:
        """The widgets of `course.widgets.explore`."""
        self.page.wait_for_timeout(500)
        return [ExplorerOnPage(self.page, one) for one in self.page.locator(".minimind-explorer").all()]

    def photograph(self, folder: Path, name: str) -> None:
        """The notebook from top to bottom as `name-01.png`, `name-02.png`, …"""
        folder.mkdir(parents=True, exist_ok=True)
        panel = self.page.locator(".jp-NotebookPanel-notebook").first
        scroller = "document.querySelector('.jp-NotebookPanel-notebook .jp-WindowedPanel-outer')"
        self.page.evaluate("() => document.activeElement?.blur()")
        # Below the last cell is empty space.
        whole, shown = self.page.evaluate(
            f"""() => {{
                const cells = document.querySelectorAll('.jp-NotebookPanel-notebook .jp-Cell');
                const [box, last] = [{scroller}, cells[cells.length - 1].getBoundingClientRect()];
                return [last.bottom - box.getBoundingClientRect().top + box.scrollTop, box.clientHeight];
            }}"""
        )
        whole = int(whole)
        for number, top in enumerate(range(0, whole, shown - 40), start=1):
            self.page.evaluate(f"top => {{ {scroller}.scrollTop = top; }}", top)
            self.page.wait_for_timeout(150)
            panel.screenshot(path=folder / f"{name}-{number:02d}.png", animations="disabled")

    def close(self) -> None:
        """End the kernel; nothing is saved."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


class ExplorerOnPage:
    """A widget of `course.widgets.explore`: controls, and a picture that follows them."""

    def __init__(self, page: Page, box: Locator) -> None:
        self.page, self.box = page, box
        self.picture = box.locator(".minimind-picture")

    def move_each_control(self) -> dict[str, bool]:
        """Move every control and put it back; returns by its label whether the picture followed.

        Back, because one control can hide another: with top-k at 1, top-p changes nothing.
        """
        followed = {}
        controls = self.box.locator(":scope > :not(.minimind-picture)").all()
        for number, control in enumerate(controls):
            label = " ".join(control.locator("label").all_inner_texts()).strip(" \u200b")
            followed[label or f"control {number}, which has no label"] = self._move(control)
        return followed

    def _move(self, control: Locator) -> bool:
        """Change a control's value in ways that it has, until the picture changes, and change it back."""
        return any(self._there_and_back(there, back) for there, back in self._ways(control))

    def _ways(self, control: Locator) -> list[tuple[Callable[[], object], Callable[[], object]]]:
        """Actions that change a control's value, each with the one that undoes it."""
        handle, select, field = (
            control.locator(kind).first
            for kind in (".noUi-handle", "select", "input:not([type=checkbox]), textarea")
        )
        if handle.count():
            right, left = (lambda key=key: handle.press(key) for key in ("ArrowRight", "ArrowLeft"))
            # A step to the right may change nothing: at the end of the scale, or between equal pictures.
            return [(right, left), (left, right), (left, right)]
        if select.count():
            chosen = select.evaluate("one => one.selectedIndex")
            others = [n for n in range(select.locator("option").count()) if n != chosen]
            back = lambda: select.select_option(index=chosen)  # noqa: E731
            return [(lambda n=n: select.select_option(index=n), back) for n in others]
        if field.count():
            there = lambda: (field.press("End"), field.type(" 7"), field.press("Tab"))  # noqa: E731
            back = lambda: (field.press("End"), field.press("Backspace"), field.press("Tab"))  # noqa: E731
            return [(there, back)]
        button = control.locator("input[type=checkbox], button:not(.mod-active)").first
        return [(button.click, button.click)]

    def _there_and_back(self, there: Callable[[], object], back: Callable[[], object]) -> bool:
        if not self._after(self.picture.inner_html(), there):
            return False
        self._after(self.picture.inner_html(), back)
        return True

    def _after(self, before: str, action: Callable[[], object]) -> bool:
        """Whether the picture is another one, and shown, soon after an action."""
        action()
        deadline, quiet = time.monotonic() + PICTURE_SECONDS, 0
        while time.monotonic() < deadline and quiet < QUIET_CHECKS:
            self.page.wait_for_timeout(100)
            if self.picture.inner_html() != before and self.picture.evaluate(SHOWN):
                return True
            quiet = quiet + 1 if self.page.evaluate(IS_IDLE) else 0
        return False


@contextmanager
def open_chapter(browser: Browser, lab: Lab, path: str) -> Iterator[ChapterPage]:
    """A page with the notebook at `path` (below the server's folder), its kernel ready."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    try:
        page = context.new_page()
        chapter = ChapterPage(page, lab)
        page.goto(f"{lab.url}lab/tree/{path}?token={lab.token}&reset", timeout=60_000)
        page.wait_for_selector(".jp-NotebookPanel-notebook .jp-Cell", timeout=60_000)
        page.wait_for_function(IS_IDLE, timeout=60_000)
        page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        yield chapter
        chapter.close()
    finally:
        context.close()
