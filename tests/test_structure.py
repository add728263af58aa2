"""The rules that keep the package readable, checked on the code itself; test_safety.py has those for safety.

Each rule is a function from the syntax tree of a module to the faults in it; for each, a test shows on a few
lines of bad code that it finds them, so that it cannot pass by looking at nothing.
"""

import ast
import functools
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_trees import NAME, ROOT, SOURCES, TREES, calls, dotted, imports, imports_of, part_of

# From the ground up; nothing imports from a floor above its own. `__init__` offers config and model.
FLOORS = {
    "config": 0,
    "model": 1,
    "tokenizer": 1,
    "__init__": 1,
    "data": 2,
    "generation": 2,
    "sampling": 2,
    "training": 3,
    "stages": 4,
    "evaluation": 4,
    "hardware": 4,
    "course": 5,
    "commands": 6,
    "cli": 6,
}
SPEAKERS = ("cli", "commands", "course")  # may print and plot
LONGEST_FILE = 400  # lines, of a module and of a file of tests
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))


# -- floors ------------------------------------------------------------------------------------------------


def floor_faults(part: str, imported: list[tuple[int, str]]) -> list[str]:
    """Imports from a floor above, or of a part that has no floor."""
    faults = []
    for line, name in imported:
        if name.split(".")[0] != NAME:
            continue
        other = part_of(name)
        other = (
            other if other in FLOORS or len(name.split(".")) > 2 else "__init__"
        )  # from minimind_edu import MiniMind
        if FLOORS.get(other, 99) > FLOORS[part]:
            faults.append(f"line {line}: {part} imports {name}")
    return faults


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_imports_from_a_floor_above(module):
    assert floor_faults(part_of(module), imports_of(module)) == []


def test_every_part_has_a_floor():
    assert {part_of(module) for module in SOURCES} == set(FLOORS)


@pytest.mark.parametrize(
    ("part", "line", "count"),
    [
        ("model", "from minimind_edu.data.packing import collate", 1),
        ("model", "import minimind_edu.training.loop", 1),
        ("model", "def f():\n    from minimind_edu.stages import sft", 1),
        ("model", "from minimind_edu import training", 1),
        ("model", "from ..data import packing", 1),
        ("model", "from minimind_edu.config import ModelConfig\nimport torch", 0),
        ("training", "from minimind_edu.stages.sft import sft, SFTConfig", 2),
        ("config", "from minimind_edu import MiniMind", 1),
        ("data", "from minimind_edu import MiniMind\nfrom minimind_edu.tokenizer import Tokenizer", 0),
        ("stages", "import minimind_edu.course", 1),
    ],
)
def test_an_import_from_above_is_found(part, line, count):
    found = list(imports(ast.parse(line), f"{NAME}.{part}"))
    assert len(floor_faults(part, found)) == count


# -- size --------------------------------------------------------------------------------------------------


def long_files(paths: list[Path]) -> list[str]:
    counts = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    return [f"{name} has {count} lines" for name, count in counts.items() if count > LONGEST_FILE]


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_is_too_long(module):
    assert long_files([SOURCES[module]]) == []


def test_no_file_of_tests_is_too_long():
    assert long_files(TEST_FILES) == []


def test_a_file_that_is_too_long_is_found(tmp_path):
    for count in (400, 401):
        (tmp_path / f"test_{count}.py").write_text("pass\n" * count)
    assert long_files(sorted(tmp_path.iterdir())) == ["test_401.py has 401 lines"]


# -- printing and plotting ---------------------------------------------------------------------------------


def speaking_faults(tree: ast.AST) -> list[str]:
    """Calls of print, and imports of Matplotlib."""
    faults = [f"line {call.lineno}: print" for call in calls(tree) if dotted(call.func) == "print"]
    return faults + [
        f"line {line}: {name}"
        for line, name in imports(tree)
        if name.split(".")[0] in ("matplotlib", "seaborn")
    ]


@pytest.mark.parametrize("module", [module for module in SOURCES if part_of(module) not in SPEAKERS])
def test_only_the_command_line_and_the_course_print_or_plot(module):
    assert speaking_faults(TREES[module]) == []


def test_printing_and_plotting_are_found():
    code = "print(1)\ndef f():\n    import matplotlib.pyplot as plt\n    print('x', end='')\n"
    assert len(speaking_faults(ast.parse(code + "from matplotlib import cm"))) == 4
    assert speaking_faults(ast.parse("pprint(1)\n'print(1)'\nfootprint = reprint(2)")) == []


# -- documentation -----------------------------------------------------------------------------------------


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Public classes and functions of a module and public methods of public classes, once each."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node


def is_stub(node: ast.AST) -> bool:
    """``...`` alone: an overload, or a method of a protocol; its name and types say what it is."""
    body = getattr(node, "body", [])
    return isinstance(body[0], ast.Expr) and getattr(body[0].value, "value", None) is ...


def documentation_faults(tree: ast.Module) -> list[str]:
    """Public names without a docstring, and public functions whose types are not all given."""
    faults = [] if ast.get_docstring(tree) or not tree.body else ["the module has no docstring"]
    for name, node in public_definitions(tree):
        if not is_stub(node) and not ast.get_docstring(node):
            faults.append(f"line {node.lineno}: {name} has no docstring")
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            given += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
            faults += [
                f"line {node.lineno}: {name} has no type for {argument.arg}"
                for argument in given
                if argument.annotation is None and argument.arg not in ("self", "cls")
            ]
            if node.returns is None:
                faults.append(f"line {node.lineno}: {name} has no return type")
    return faults


# What these do is said by their line of help in the table of commands, or by the class they implement.
SAID_ELSEWHERE = re.compile(
    r"minimind_edu\.commands\.\w+: .* run_\w+ has no docstring|: \w+\.forward has no docstring"
)


@pytest.mark.parametrize("module", SOURCES)
def test_public_names_are_documented_and_typed(module):
    faults = [f"{module}: {fault}" for fault in documentation_faults(TREES[module])]
    assert [fault for fault in faults if not SAID_ELSEWHERE.search(fault)] == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ('"""Doc."""\ndef f(a: int) -> int:\n    """Doc."""', 0),
        ('def f(a: int) -> int:\n    """Doc."""', 1),
        ('"""Doc."""\ndef f(a: int) -> int:\n    return a', 1),
        ('"""Doc."""\ndef f(a, *b, c, **d):\n    """Doc."""', 5),
        ('"""Doc."""\nclass A:\n    def f(self) -> int:\n        """Doc."""', 1),
        ('"""Doc."""\nclass A:\n    """Doc."""\n    def f(self):\n        return 1', 2),
        ('"""Doc."""\ndef _f(a):\n    pass\nclass _A:\n    pass', 0),
        ('"""Doc."""\ndef f(a: int) -> int: ...', 0),
        ("", 0),
    ],
)
def test_missing_documentation_is_found(code, count):
    assert len(documentation_faults(ast.parse(code))) == count


# -- tests -------------------------------------------------------------------------------------------------


def origin(name: str) -> str | None:
    """The module of this package in which an imported name is defined, following those that pass it on."""
    if name in SOURCES:
        return name
    module, _, last = name.rpartition(".")
    if module not in SOURCES:
        return None
    passed_on = {inner.rpartition(".")[2]: inner for _, inner in imports_of(module)}
    return origin(passed_on[last]) if last in passed_on else module


@functools.cache
def modules_with_tests() -> set[str]:
    """Modules that a test imports from, and those that such a module of the same folder is built on."""
    files = [ast.parse(path.read_text(encoding="utf-8")) for path in TEST_FILES]
    names = {name for tree in files for _, name in imports(tree)}
    direct = {origin(name) for name in names} | {name.rpartition(".")[0] for name in names}
    built_on = {
        inner
        for module in direct & set(SOURCES)
        for _, name in imports_of(module)
        if (inner := origin(name)) and inner.rpartition(".")[0] == module.rpartition(".")[0]
    }
    return direct | built_on


@pytest.mark.parametrize("module", [name for name, path in SOURCES.items() if path.name != "__init__.py"])
def test_every_module_has_a_test(module):
    assert module in modules_with_tests()


def shared_names(paths: list[Path]) -> list[str]:
    """Names that more than one file has: tests import each other by name, so one would hide the other."""
    counts = Counter(path.name for path in paths if path.name != "conftest.py")
    return [name for name, count in counts.items() if count > 1]


def test_no_two_files_of_tests_share_a_name():
    assert shared_names(TEST_FILES) == []
    assert shared_names([Path(name) for name in ("a/toys.py", "b/toys.py", "a/test_x.py")]) == ["toys.py"]


def test_imports_are_followed_to_the_module_that_defines_a_name():
    assert origin("minimind_edu.ModelConfig") == "minimind_edu.config"
    assert origin("minimind_edu.training.fit") == "minimind_edu.training.loop"
    assert origin("minimind_edu.data.world.SmallWorld") == "minimind_edu.data.world.world"
    assert origin("minimind_edu.data.world.files.COMMITTED") == "minimind_edu.data.world.files"
    assert origin("minimind_edu.data.world.files") == "minimind_edu.data.world.files"
    assert origin("torch.nn") is None


# -- the repository ----------------------------------------------------------------------------------------


def test_datasets_stays_the_name_of_the_library():
    """An ``__init__.py`` in the folder of data files would shadow ``import datasets`` in a checkout."""
    assert not (ROOT / "datasets" / "__init__.py").exists()


# A home, or a drive, of one machine.
MACHINE_PATH = re.compile(r"(?<![\w.~$}/])/(?:home|Users|root|work|mnt)/\w|[A-Z]:\\\\?Users")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".json", ".cfg", ".sh", ".ipynb", ".svg", ""}


def repository_files() -> list[Path]:
    """Files that are tracked or could be, without data."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).is_file()]


def test_no_file_names_a_folder_of_somebodys_machine():
    faults = []
    for path in repository_files():
        if path.suffix in TEXT:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            faults += [
                f"{path.relative_to(ROOT)}:{n}"
                for n, line in enumerate(lines, 1)
                if MACHINE_PATH.search(line)
            ]
    assert [fault for fault in faults if "test_structure.py" not in fault] == []  # these lines themselves


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open('/home/ada/data.jsonl')", True),
        ("/Users/ada/x", True),
        ("cd /wo" + "rk/main", True),
        ('"/ro' + 'ot/x"', True),
        (r"C:\Users\ada", True),
        ("https://example.org/home/page", False),
        ("~/tmp/x and $HOME/wo" + "rk/x", False),
        ("tests/home/ada.py", False),
        ("tmp/x", False),
    ],
)
def test_a_folder_of_a_machine_is_found(line, found):
    assert bool(MACHINE_PATH.search(line)) is found
