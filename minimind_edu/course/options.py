"""Tables of a command's options, for chapters that explain each where it acts.

options = OptionTables(PretrainConfig)
options("learning_rate", "warmup_iters")     # a table with the words of `--help`
assert not options.left                      # at the end: none was forgotten
"""

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import Markdown


class OptionTables:
    """The options of a command, shown a few at a time.

    Args:
        config: the dataclass of the command's settings.

    Attributes:
        left: names that no table has shown yet, in the order of the command.
    """

    def __init__(self, config: type) -> None:
        self.config = config
        self.defaults = {field.name: field.default for field in dataclasses.fields(config)}
        self.left = list(self.defaults)

    def __call__(self, *names: str) -> "Markdown":
        """A table of some options: default, and what the docstrings say.

        Raises:
            ValueError: the command has no such option.
        """
        from IPython.display import Markdown  # only notebooks need it

        lines = ["| option | default | what it does |", "| --- | --- | --- |"]
        for name in names:
            if name not in self.defaults:
                raise ValueError(f"{self.config.__name__} has no option {name!r}")
            default = self.defaults[name]
            shown = "" if default in ("", dataclasses.MISSING) else f"`{default}`"
            lines.append(f"| `--{name}` | {shown} | {self._explanation(name)} |")
        self.left = [name for name in self.left if name not in names]
        return Markdown("\n".join(lines))

    def _explanation(self, name: str) -> str:
        for kind in self.config.__mro__:
            entry = re.search(rf"^    {name}: (.*(?:\n {{8}}.*)*)", inspect.getdoc(kind) or "", re.M)
            if entry:
                return " ".join(entry[1].split()).replace("|", r"\|")  # else it would end the table's cell
        return ""
