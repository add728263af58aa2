"""`make figures`: run every script in `figures/`, each of which draws the pictures beside it."""

import runpy
import sys

from minimind_edu.course.results import ROOT

FIGURES = ROOT / "figures"


def main() -> int:
    """Draw all figures anew; they do not change unless their scripts do."""
    for script in sorted(FIGURES.glob("*.py")):
        runpy.run_path(str(script), run_name="__main__")
        print(f"drew figures/{script.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
