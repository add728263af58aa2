"""The modules of the package as syntax trees, and what tests of the code ask of one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import minimind_edu

PACKAGE = Path(minimind_edu.__file__).parent
ROOT = PACKAGE.parent
NAME = PACKAGE.name


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
