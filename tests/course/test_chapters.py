"""The chapters as files: built from their sources, executed, compared enough, and within their sizes.

That they run, and give the outputs that are stored, is nbval's part of `make test`.
"""

import ast
import json
import re
import statistics

import nbformat
import pytest

from minimind_edu.course import build, exercises
from minimind_edu.course.results import ROOT

SOURCES = build.sources()
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
CHAPTER = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def stored(source):
    return nbformat.read(build.notebook_path(source), as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def is_ignored(cell):
    return build.IGNORED in cell.metadata.get("tags", ())


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def word_count(markdown):
    """Words of a text: numbers, formulas and code count as words where they stand between spaces."""
    text = IMAGE.sub(" ", markdown)
    text = re.sub(r"```.*?```|\$\$.*?\$\$", " ", text, flags=re.S)  # listings and displayed formulas
    text = re.sub(r"\]\([^)]*\)", "]", text)  # where links lead
    return len([word for word in text.split() if re.search(r"\w", word)])


def test_there_are_chapters_and_each_notebook_has_a_source():
    built = {path.stem for path in build.CHAPTERS.glob("*.ipynb")}
    assert built and built == {source.stem for source in SOURCES}


@CHAPTER
def test_notebook_and_source_have_the_same_cells(source):
    ours = [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in build.read_source(source).cells]
    theirs = [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in stored(source).cells]
    assert ours == theirs, f"build it again: minimind-edu course build {source.name[:2]}"


@CHAPTER
def test_every_cell_was_executed_in_order_without_errors(source):
    notebook = stored(source)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.output_type for cell in code_cells(notebook) for output in cell.outputs}
    assert "error" not in kinds


@CHAPTER
def test_enough_outputs_are_compared(source):
    """A notebook without outputs, or with all of them ignored, would pass nbval whatever it did."""
    with_output = [cell for cell in code_cells(stored(source)) if cell.outputs]
    compared = [cell for cell in with_output if not is_ignored(cell)]
    assert len(compared) >= 12
    assert len(compared) * 2 >= len(with_output)


@CHAPTER
def test_sizes(source):
    notebook = stored(source)
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert 25 <= len(lengths) <= 40
    assert statistics.median(lengths) <= 6 and max(lengths) <= 40
    assert 1_200 <= word_count(prose(notebook)) <= 2_000
    assert build.notebook_path(source).stat().st_size < 3_000_000


@CHAPTER
def test_figures_are_local_and_have_alt_text(source):
    images = IMAGE.findall(prose(stored(source)))
    assert len(images) >= 4
    for alt, target in images:
        assert len(alt) > 15, f"{target}: say what the figure shows"
        assert (build.CHAPTERS / target).resolve().is_relative_to(ROOT / "figures"), target
        assert (build.CHAPTERS / target).is_file(), f"{target} is missing"
    for cell in code_cells(stored(source)):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.data["text/plain"]) > 15, "a picture without alt text"


@CHAPTER
def test_every_part_of_a_chapter_is_there(source):
    notebook, number = stored(source), source.name[:2]
    code = "\n".join(cell.source for cell in code_cells(notebook))
    assert f"map_{number}.svg" in prose(notebook)
    assert "explore(" in code and "start(" in code and "claims.table()" in code
    names = set(re.findall(r'check\("(ch\d\d\.\w+)"', code))
    assert 3 <= len(names) <= 4 and names <= set(exercises.names())
    outputs = " ".join(output.get("text", "") for cell in code_cells(notebook) for output in cell.outputs)
    for name in names:
        assert f"{name}: {exercises.checking.NOT_ATTEMPTED}" in outputs
    assert re.search(r"^#+ References", prose(notebook), re.M)


@CHAPTER
def test_claims(source):
    number = source.name[:2]
    record = json.loads((ROOT / "records" / f"claims-{number}.json").read_text(encoding="utf-8"))
    code = "\n".join(cell.source for cell in code_cells(stored(source)))
    names = [claim["name"] for claim in record["claims"]]
    assert len(names) >= 8 and all(name.startswith(f"ch{number}.") for name in names)
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) == "claims.record" and isinstance(call.args[0], ast.Constant):
            assert call.args[0].value in names, "the record is older than the chapter: build it again"


def test_word_count_skips_images_listings_and_link_targets():
    assert word_count("one ![two three](x.svg) [four](http://a.b/c) `five`\n```\nsix\n```\n| 7 | - |") == 4


def test_code_cells_have_code():
    new = nbformat.v4
    cells = [new.new_markdown_cell("text"), new.new_code_cell(" \n"), new.new_code_cell("x")]
    tagged = new.new_code_cell("y", metadata={"tags": [build.IGNORED]})
    notebook = new.new_notebook(cells=[*cells, tagged])
    assert [cell.source for cell in code_cells(notebook)] == ["x", "y"]
    assert [is_ignored(cell) for cell in code_cells(notebook)] == [False, True]
    assert prose(notebook) == "text"


# -- the rules find what they should -----------------------------------------------------------------------


def ignore_everything(notebook):
    for cell in code_cells(notebook):
        cell.metadata["tags"] = [build.IGNORED]


def drop_outputs(notebook):
    for cell in code_cells(notebook):
        cell.outputs = []


def drop_a_count(notebook):
    code_cells(notebook)[3].execution_count = None


def add_an_error(notebook):
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    code_cells(notebook)[3].outputs.append(error)


def change_a_cell(notebook):
    notebook.cells[0].source += " And more."


def write_a_long_cell(notebook):
    code_cells(notebook)[0].source += "\n" * 40 + "x"


def add_cells(notebook):
    notebook.cells += [nbformat.v4.new_code_cell("x = 1") for _ in range(20)]


def add_words(notebook):
    notebook.cells.append(nbformat.v4.new_markdown_cell("word " * 1_000))


def take_a_picture_from_elsewhere(notebook):
    notebook.cells[0].source += "\n![a picture of something else](https://example.org/x.png)"


def forget_what_a_picture_shows(notebook):
    for cell in notebook.cells:
        cell.source = IMAGE.sub(r"![](\2)", cell.source)


def name_a_missing_picture(notebook):
    notebook.cells[0].source += "\n![a picture that nobody drew](../figures/nothing.svg)"


def drop(text):
    def damage(notebook):
        notebook.cells = [cell for cell in notebook.cells if text not in cell.source]

    damage.__name__ = f"drop {text}"
    return damage


def solve_an_exercise(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            output.text = output.get("text", "").replace("not attempted", "passed")


def claim_something_new(notebook):
    code_cells(notebook)[0].source += '\nclaims.record("ch01.new", 1, equals=1, source="")'


DAMAGES = [
    (test_enough_outputs_are_compared, ignore_everything),
    (test_enough_outputs_are_compared, drop_outputs),
    (test_every_cell_was_executed_in_order_without_errors, drop_a_count),
    (test_every_cell_was_executed_in_order_without_errors, add_an_error),
    (test_notebook_and_source_have_the_same_cells, change_a_cell),
    (test_sizes, write_a_long_cell),
    (test_sizes, add_cells),
    (test_sizes, add_words),
    (test_figures_are_local_and_have_alt_text, take_a_picture_from_elsewhere),
    (test_figures_are_local_and_have_alt_text, forget_what_a_picture_shows),
    (test_figures_are_local_and_have_alt_text, name_a_missing_picture),
    (test_every_part_of_a_chapter_is_there, drop("explore(")),
    (test_every_part_of_a_chapter_is_there, drop("claims.table()")),
    (test_every_part_of_a_chapter_is_there, drop("# References")),
    (test_every_part_of_a_chapter_is_there, drop("map_01.svg")),
    (test_every_part_of_a_chapter_is_there, solve_an_exercise),
    (test_claims, claim_something_new),
]


@pytest.mark.parametrize(("rule", "damage"), DAMAGES, ids=lambda function: function.__name__)
def test_a_damaged_chapter_is_noticed(tmp_path, monkeypatch, rule, damage):
    source, notebook = SOURCES[0], stored(SOURCES[0])
    (tmp_path / "chapters").mkdir()
    (tmp_path / "figures").symlink_to(ROOT / "figures")
    monkeypatch.setattr(build, "CHAPTERS", tmp_path / "chapters")
    nbformat.write(notebook, build.notebook_path(source))
    rule(source)
    damage(notebook)
    nbformat.write(notebook, build.notebook_path(source))
    with pytest.raises(AssertionError):
        rule(source)
