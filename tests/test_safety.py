"""Nothing in the package may run a stranger's code, or open a door; tests run no text either."""

import ast
from collections.abc import Iterator

import pytest
from source_trees import ROOT, SOURCES, TREES, calls, dotted, imports

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
