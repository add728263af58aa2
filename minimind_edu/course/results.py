"""The README's table of results, made from the committed records: ``make results`` writes it anew.

A record is the ``report.json`` of a tour, copied to ``records/tour-seed-N.json``; it says when, on what and
by which command it was measured.
"""

import datetime
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- results: make results -->", "<!-- end of results -->"


def environment() -> dict[str, object]:
    """When and on what something was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "minimind-edu": version("minimind-edu"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": processor(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """The processor's name with its vector instructions, as far as the system tells."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def table(records: list[dict]) -> str:
    """A Markdown table with one row a record."""
    head = (
        "| seed | loss | floor | loss / floor | pretraining tokens | seconds in all "
        "| exact match, taught people (English / Chinese) | other people (English / Chinese) |"
    )
    lines = [head, "| --- " * (head.count("|") - 1) + "|"]
    for record in records:
        scores = record["exact_match"]
        taught, others = (
            " / ".join(f"{scores[language][group]:.3f}" for language in ("English", "Chinese"))
            for group in ("taught", "not taught")
        )
        lines.append(
            f"| {record['seed']} | {record['loss']:.4f} | {record['floor']:.4f} "
            f"| {record['loss'] / record['floor']:.3f} | {record['tokens']['pretraining']:,} "
            f"| {sum(record['seconds'].values()):.0f} | {taught} | {others} |"
        )
    where = records[0]["environment"]
    lines += [
        "",
        f"Measured on {where['date']} with {where['threads']} threads of {where['cpu']}, "
        f"Python {where['python']}, torch {where['torch']}, by `{records[0]['command']}` and so for each "
        "seed. Loss and floor are in nats a token, on held-out documents; questions about a person were all "
        "in the fine-tuning data (taught) or none of them was.",
    ]
    return "\n".join(lines)


def with_results(readme: str, records: list[dict]) -> str:
    """The README with the table between its two markers.

    Raises:
        ValueError: a marker is missing, or there is no record.
    """
    if not records:
        raise ValueError("there are no records to show: copy a tour's report.json to records/")
    before, _, rest = readme.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the README needs the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{table(records)}\n{END}{after}"


def tour_records() -> list[dict]:
    """The committed records of tours, by seed."""
    paths = (ROOT / "records").glob("tour-seed-*.json")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(records, key=lambda record: record["seed"])


def main() -> int:
    """Write the README anew."""
    path = ROOT / "README.md"
    path.write_text(with_results(path.read_text(encoding="utf-8"), tour_records()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
