"""The builder of the chapters, on small ones in a folder of their own."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

from minimind_edu.course import build
from minimind_edu.course.build import BuildConfig, ChapterError

CHAPTER = """\
# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Somebody's Python
#     name: somebody
# ---

# %% [markdown] editable=true
# # A chapter
# It is about 猫.

# %% slideshow={"slide_type": "skip"}
print("from the file beside:", open("number.txt").read())

# %% tags=["nbval-ignore-output"]
import sys
import time

print(time.perf_counter_ns())
print("noise", file=sys.stderr)

# %%
from minimind_edu.course import claims

claims.record("ch01.two", 1 + 1, equals=2, source="猫")
claims.table()
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course in a folder of its own; `build` works in it."""
    for folder in ("chapters/source", "records", "minimind_edu", "datasets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "chapters" / "number.txt").write_text("7")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "CHAPTERS", tmp_path / "chapters")
    return tmp_path


def write(course, text=CHAPTER, name="01_cats"):
    path = course / "chapters" / "source" / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return path


def cell(code, tags=""):
    return f"# %%{tags}\n{code}\n"


TAGGED = ' tags=["nbval-ignore-output"]'


def run_once(course, capsys, **options):
    """Build, and return the state that is printed, with the bytes of everything but the sources."""
    build.build(BuildConfig(**options))
    name, state = capsys.readouterr().out.split(": ")
    assert name == "01_cats" and state.rstrip().endswith(" s")
    return state.split(",")[0], contents(course)


def contents(course):
    files = [*(course / "chapters").iterdir(), *(course / "records").iterdir()]
    return {path.name: path.read_bytes() for path in files if path.is_file() and path.name != "number.txt"}


# -- from source to notebook -------------------------------------------------------------------------------


def test_a_source_is_reduced_to_what_we_mean(course):
    notebook = build.read_source(write(course))
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [(c.cell_type, c.id) for c in notebook.cells] == [
        ("markdown", "01-000"), ("code", "01-001"), ("code", "01-002"), ("code", "01-003"),
    ]  # fmt: skip
    assert [c.metadata for c in notebook.cells] == [{}, {}, {"tags": ["nbval-ignore-output"]}, {}]
    assert notebook.cells[0].source == "# A chapter\nIt is about 猫."
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)


def test_sources_are_found_by_number(course):
    first, second = write(course, name="01_cats"), write(course, name="02_dogs")
    write(course, name="notes")
    assert build.sources() == build.sources("all") == [first, second]
    assert build.sources("02") == [second]
    assert build.notebook_path(second) == course / "chapters" / "02_dogs.ipynb"
    for wrong in ("03", "2", "", "0", "cats"):
        with pytest.raises(ValueError, match="there is no chapter .*; there are: 01, 02"):
            build.sources(wrong)


def test_a_course_without_chapters(course):
    with pytest.raises(ValueError, match="there are: none"):
        build.sources()


# -- building ----------------------------------------------------------------------------------------------


def test_a_chapter_is_executed_and_stored_with_its_claims(course, capsys):
    source = write(course)
    state, files = run_once(course, capsys, chapter="01")
    assert state == "stored" and set(files) == {"01_cats.ipynb", "claims-01.json"}
    notebook = nbformat.reads(files["01_cats.ipynb"].decode(), as_version=4)
    code = notebook.cells[1:]
    assert [c.execution_count for c in code] == [1, 2, 3]
    assert code[0].outputs[0].text == "from the file beside: 7\n", "it runs in the folder of the notebooks"
    assert [(o.output_type, o.name) for o in code[1].outputs] == [("stream", "stdout")], "no standard error"
    assert "| `ch01.two` | 2 | exactly 2 | 猫 |" in code[2].outputs[0].data["text/markdown"]
    assert all("execution" not in c.metadata for c in code), "no times of day"
    record = json.loads(files["claims-01.json"])
    assert record["command"] == "minimind-edu course build 01" and record["environment"]["torch"]
    assert record["claims"] == [
        {"name": "ch01.two", "value": 2.0, "at_least": 2.0, "at_most": 2.0, "source": "猫"}
    ]
    assert notebook.metadata["minimind_edu"] == {"fingerprint": build.course_fingerprint(source)}


def test_a_rebuild_writes_only_where_something_changed(course, capsys):
    """One chapter, built again and again: what should be stored anew, and what not."""
    write(course)
    _, first = run_once(course, capsys)
    assert run_once(course, capsys) == ("unchanged", first), "although the time it prints is another one"

    (course / "chapters" / "number.txt").write_text("8")
    state, changed_output = run_once(course, capsys)
    assert state == "stored" and b"beside: 8" in changed_output["01_cats.ipynb"]

    write(course, CHAPTER.replace("It is about", "It tells about"))
    state, changed_source = run_once(course, capsys)
    assert state == "stored" and b"It tells about" in changed_source["01_cats.ipynb"]

    (course / "minimind_edu" / "new.py").write_text("")
    state, changed_package = run_once(course, capsys)
    assert state == "stored", "what is not compared may have changed"
    assert changed_package["01_cats.ipynb"] != changed_source["01_cats.ipynb"]

    (course / "records" / "claims-01.json").unlink()
    state, again = run_once(course, capsys)
    assert state == "stored" and set(again) == set(first)

    state, fresh = run_once(course, capsys, fresh=1)
    assert state == "stored" and fresh["01_cats.ipynb"] != again["01_cats.ipynb"], "the time is the new one"


@pytest.mark.parametrize(
    "path",
    [
        "minimind_edu/new.py",
        "minimind_edu/new.jsonl",
        "datasets/new.jsonl",
        "records/sweep-07.json",
        "records/hardware.csv",
        "chapters/source/01_cats.py",
    ],
)
def test_the_fingerprint_follows_what_outputs_follow_from(course, path):
    source = write(course)
    before = build.course_fingerprint(source)
    assert build.course_fingerprint(source) == before and len(before) == 16
    (course / path).write_text("x = 1\n")
    changed = build.course_fingerprint(source)
    assert changed != before
    (course / path).write_bytes(b"x = 1\r\n")
    assert build.course_fingerprint(source) == changed, "line ends of a checkout on Windows"


@pytest.mark.parametrize("path", ["datasets/README.md", "records/claims-01.json", "chapters/02_dogs.ipynb"])
def test_the_fingerprint_does_not_follow_what_is_built(course, path):
    source = write(course)
    before = build.course_fingerprint(source)
    (course / path).write_text("{}")
    assert build.course_fingerprint(source) == before


# -- chapters that cannot be built -------------------------------------------------------------------------

BAR = "class Bar:\n    def __repr__(self):\n        return ' 50%|#####     | 1/2'\n\nBar()"
WIDGET = "display({'application/vnd.jupyter.widget-view+json': {}}, raw=True)"
NOISES = {"stderr": "import sys\n\nprint('a warning', file=sys.stderr)", "bar": BAR, "widget": WIDGET}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_in_a_compared_cell_is_an_error_that_names_it(course, kind):
    source = write(course, cell("print(1)") + cell(NOISES[kind]))
    shown = {"stderr": "a warning", "bar": "50%", "widget": "a widget without a text"}[kind]
    with pytest.raises(ChapterError, match=f"01_cats.py, cell 01-001: .*{shown}.* would be compared; tag"):
        build.execute(source)


def test_noise_in_a_tagged_cell_is_not_stored(course):
    source = write(course, "".join(cell(code, TAGGED) for code in NOISES.values()))
    notebook, claims = build.execute(source)
    assert [c.outputs for c in notebook.cells] == [[], [], []] and claims == []


def test_a_widget_keeps_its_picture_and_loses_its_handle(course):
    code = (
        "display({'application/vnd.jupyter.widget-view+json': {}, 'text/plain': 'a picture of it'}, raw=True)"
    )
    notebook, _ = build.execute(write(course, cell(code)))
    assert notebook.cells[0].outputs[0].data == {"text/plain": "a picture of it"}


def test_a_failing_cell_is_named_and_nothing_is_stored(course):
    write(course, cell("print(1)") + cell("1 / 0") + cell("print(2)"))
    with pytest.raises(ChapterError) as error:
        build.build(BuildConfig("01"))
    first, *rest = str(error.value).splitlines()
    assert first == "01_cats.py, cell 01-001: ZeroDivisionError: division by zero"
    assert "1 / 0" in rest
    assert contents(course) == {}


def test_a_cell_that_takes_too_long_is_named(course, monkeypatch):
    monkeypatch.setattr(build, "CELL_SECONDS", 2)
    source = write(course, cell("import time") + cell("time.sleep(60)"))
    with pytest.raises(ChapterError, match="01_cats.py, cell 01-001: A cell timed out"):
        build.execute(source)


def test_a_kernel_that_dies_is_an_error(course):
    source = write(course, cell("import os") + cell("os._exit(3)"))
    with pytest.raises(ChapterError, match="01_cats.py, cell 01-001: Kernel died"):
        build.execute(source)


# -- the same as nbval -------------------------------------------------------------------------------------


def test_the_replacements_are_nbvals():
    text = build.SANITIZE.read_text(encoding="utf-8")
    ours = [(pattern.pattern, replacement) for pattern, replacement in build.sanitizers()]
    assert ours == get_sanitize_patterns(text) and len(ours) >= 3


def one_output(text, kind="text/plain", tags=()):
    output = nbformat.v4.new_output("display_data", {kind: text})
    code = nbformat.v4.new_code_cell("x", outputs=[output], metadata={"tags": list(tags)})
    return nbformat.v4.new_notebook(cells=[code])


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (one_output("1"), one_output("1"), True),
        (one_output("1"), one_output("2"), False),
        (one_output("1"), one_output("2", tags=[build.IGNORED]), False),
        (one_output("1", tags=[build.IGNORED]), one_output("2", tags=[build.IGNORED]), True),
        (one_output("<f at 0x7f00aa>"), one_output("<f at 0x7f11bb>"), True),
        (one_output("a", "image/png"), one_output("b", "image/png"), True),
        (one_output("a", "text/html"), one_output("b", "text/html"), False),
    ],
)
def test_what_is_compared(one, other, equal):
    assert (build.compared(one) == build.compared(other)) is equal


def test_nbval_passes_what_was_built_and_fails_what_was_changed(course, capsys):
    write(course)
    run_once(course, capsys)
    path = course / "chapters" / "01_cats.ipynb"
    text = path.read_text(encoding="utf-8")
    changed = text.replace("beside: 7", "beside: 9")
    assert changed != text
    path.with_name("02_changed.ipynb").write_text(changed, encoding="utf-8")
    words = [
        "--nbval",
        "--nbval-current-env",
        f"--nbval-sanitize-with={build.SANITIZE}",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "chapters"], cwd=course, capture_output=True, text=True
    )
    assert "1 failed, 5 passed" in done.stdout, done.stdout
    assert "FAILED chapters/02_changed.ipynb::Cell 0" in done.stdout
