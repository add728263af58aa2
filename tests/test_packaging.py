"""environment.yml, pyproject.toml, constraints.txt and the Makefile must say the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def direct_requirements() -> list[Requirement]:
    """Every requirement of the package and of its extras, except extras that name the package itself.

    The extra `log` is not pinned: its dashboards need older versions of packages that the rest shares.
    """
    extras = [lines for name, lines in PROJECT["optional-dependencies"].items() if name != "log"]
    groups = [PROJECT["dependencies"], *extras]
    requirements = [Requirement(line) for group in groups for line in group]
    return [one for one in requirements if one.name != PROJECT["name"]]


def pins() -> dict[str, Version]:
    """Name -> version of constraints.txt, every line of which must be an exact pin or a comment."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"constraints.txt: not an exact pin: {line!r}"
        name = canonicalize_name(match[1])
        assert name not in found, f"constraints.txt: {name} stands there twice"
        found[name] = Version(match[2])
    return found


@pytest.mark.parametrize("requirement", direct_requirements(), ids=str)
def test_every_direct_requirement_is_pinned_to_an_allowed_version(requirement):
    pinned = pins()
    name = canonicalize_name(requirement.name)
    assert name in pinned, f"{name} has no pin in constraints.txt"
    assert requirement.specifier.contains(pinned[name]), f"{name} is pinned outside {requirement.specifier}"


def test_torch_is_a_range_in_the_package_and_exact_in_the_constraints():
    torch = next(one for one in direct_requirements() if one.name == "torch")
    assert "==" not in str(torch.specifier)
    assert pins()["torch"] == Version("2.13.0")


def test_installed_versions_are_the_pinned_ones():
    """What the tests ran with is what a reader gets."""
    from importlib.metadata import PackageNotFoundError, version

    differ = {}
    for name, pinned in pins().items():
        try:
            installed = Version(version(name))
        except PackageNotFoundError:
            continue
        if installed.public != pinned.public:
            differ[name] = f"{installed}, pinned {pinned}"
    assert not differ


def test_conda_brings_python_and_pip_only():
    conda = [one for one in ENVIRONMENT["dependencies"] if isinstance(one, str)]
    assert conda == ["python=3.12", "pip"]
    assert "conda-forge" in ENVIRONMENT["channels"]
    version = Version(conda[0].split("=")[1])
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(f"{version}.0")


def test_conda_installs_the_same_package_under_the_same_constraints():
    pip_lines = next(one["pip"] for one in ENVIRONMENT["dependencies"] if isinstance(one, dict))
    assert "--constraint constraints.txt" in pip_lines
    (editable,) = [line for line in pip_lines if line.startswith("--editable")]
    extras = re.fullmatch(r"--editable \.\[(.+)\]", editable)[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert {"lab", "test"} <= set(extras)


def test_makefile_uses_the_constraints_and_known_extras():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs and all("--constraint constraints.txt" in line for line in installs)
    for extras in re.findall(r"EXTRAS = \[(.+)\]", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_readme_names_both_commands_and_the_conda_way():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    conda = ("conda env create -f environment.yml", f"conda activate {ENVIRONMENT['name']}")
    for words in ("make tour", "make test", "make lab", *conda):
        assert words in text
