"""Chapters run offline: while they are tested, their kernels can reach this machine and no other."""

import os
from pathlib import Path

GUARD = str(Path(__file__).resolve().parents[1] / "tests" / "no_network")

# Kernels inherit it, and Python imports the `sitecustomize` that it finds there.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [GUARD, os.environ.get("PYTHONPATH")]))
