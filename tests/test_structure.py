"""The rules that keep the package readable and safe, checked on the code itself.

Each rule is a function from the syntax tree of a module to the faults in it; for each, a test shows on a few
lines of bad code that it finds them, so that it cannot pass by looking at nothing.
"""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import minimind_edu

PACKAGE = Path(minimind_edu.__file__).parent
ROOT = PACKAGE.parent
NAME = PACKAGE.name

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
LONGEST_MODULE = 400  # lines


def module_name(path: Path) -> str:
    """``data/errors.py`` -> ``minimind_edu.data.errors``, ``data/__init__.py`` -> ``minimind_edu.data``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def part_of(module: str) -> str:
    """The name on the floor plan: ``minimind_edu.data.world`` -> ``data``."""
    return (module.split(".") + ["__init__"])[1]


def imports(tree: ast.AST, package: str = "") -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that is imported, in functions too; ``from a import b`` gives ``a.b``.

    ``package`` is the one the module is in, for relative imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def imports_of(module: str) -> list[tuple[int, str]]:
    is_package = SOURCES[module].name == "__init__.py"
    return list(imports(TREES[module], module if is_package else module.rpartition(".")[0]))


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name or attribute; ``?`` stands for anything else, as in ``?.eval`` of ``f().eval``."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


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


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_is_too_long(module):
    assert len(SOURCES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


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


# -- safety ------------------------------------------------------------------------------------------------

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NOT_SANDBOXED = {
    "jinja2.Environment",
    "jinja2.Template",
    "jinja2.environment.Environment",
    "jinja2.environment.Template",
}


def safety_faults(tree: ast.AST) -> list[str]:
    """What may run a stranger's code, or open a door: see the tests below for one example of each."""
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "0.0.0.0" in node.value:
            faults.append(f"line {node.lineno}: listens on every interface")
        elif isinstance(node, ast.ClassDef):
            faults += [
                f"line {node.lineno}: {dotted(base)}" for base in node.bases if dotted(base) in NOT_SANDBOXED
            ]
        elif isinstance(node, ast.Call):
            faults += [f"line {node.lineno}: {what}" for what in call_faults(node)]
    return faults + [f"line {line}: {name}" for line, name in imports(tree) if is_unsafe_import(name)]


def is_unsafe_import(name: str) -> bool:
    is_pickle = name.split(".")[0] in PICKLES and name != "pickle.UnpicklingError"  # torch.load may raise it
    return is_pickle or name in NOT_SANDBOXED


def call_faults(call: ast.Call) -> Iterator[str]:
    name = dotted(call.func)
    options = {option.arg: getattr(option.value, "value", None) for option in call.keywords}
    if name in ("eval", "exec", "compile", "builtins.eval", "builtins.exec", "__import__"):
        yield name
    if name in NOT_SANDBOXED:
        yield name
    if name == "torch.load" and options.get("weights_only") is not True:
        yield "torch.load without weights_only=True"
    if options.get("weights_only") is False:
        yield "weights_only=False"
    if options.get("allow_pickle") is True:
        yield "allow_pickle=True"
    if options.get("trust_remote_code") is True:
        yield "trust_remote_code=True"
    if options.get("shell") is True or name in ("os.system", "os.popen"):
        yield "a shell"
    if name == "yaml.load":
        yield "yaml.load"


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_runs_code_from_files_or_opens_a_door(module):
    assert safety_faults(TREES[module]) == []


RUNS_CODE = {"eval", "exec", "pickle.load", "pickle.loads"}


def test_tests_run_no_text_and_load_no_pickle():
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for call in calls(ast.parse(path.read_text(encoding="utf-8")))
        if dotted(call.func) in RUNS_CODE
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "eval('1 + 1')",
        "exec(code)",
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "from jinja2 import Environment",
        "import jinja2\njinja2.Environment()",
        "from jinja2 import Template",
        "class Mine(jinja2.Environment):\n    pass",
        "serve(host='0.0.0.0')",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
    ],
)
def test_an_unsafe_line_is_found(line):
    assert len(safety_faults(ast.parse(line))) >= 1


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "model.to(device).eval()",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "from pickle import UnpicklingError",
        "def f() -> jinja2.Template: ...",
        "from jinja2.sandbox import ImmutableSandboxedEnvironment",
        "torch.compile(model)",
        "re.compile('a')",
    ],
)
def test_a_safe_line_is_not(line):
    assert safety_faults(ast.parse(line)) == []


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
    files = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py")]
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
