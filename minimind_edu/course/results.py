"""The README's tables of results, made from the committed records: ``make results`` writes them anew.

A record is the ``report.json`` of a tour, copied to ``records/tour-seed-N.json``, or the claims of a chapter,
which ``minimind-edu course build`` keeps in ``records/claims-NN.json``. Each says when, on what and by which
command it was measured.
"""

import datetime
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from minimind_edu.course.claims import Claim, as_markdown

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- results: make results -->", "<!-- end of results -->"
CLAIMS_BEGIN, CLAIMS_END = "<!-- claims: make results -->", "<!-- end of claims -->"


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


def claims_tables(records: dict[str, dict]) -> str:
    """The claims of each chapter as a table that unfolds, by chapter number."""
    parts = []
    for number, record in sorted(records.items()):
        claims, where = [Claim(**claim) for claim in record["claims"]], record["environment"]
        parts += [
            f"<details><summary>Chapter {int(number)}: {len(claims)} claims, measured on {where['date']}"
            f"</summary>\n\n{as_markdown(claims)}\n\nBy `{record['command']}`, {where['threads']} threads of "
            f"{where['cpu']}, torch {where['torch']}.\n</details>\n"
        ]
    return "\n".join(parts)


def with_results(readme: str, tours: list[dict], claims: dict[str, dict]) -> str:
    """The README with both tables between their markers.

    Args:
        tours: records of tours.
        claims: records of chapters by number, such as "02".

    Raises:
        ValueError: a marker is missing, or there is no record.
    """
    if not tours or not claims:
        raise ValueError("there are no records to show: copy a tour's report.json to records/, make chapters")
    readme = _between(readme, BEGIN, END, table(tours))
    return _between(readme, CLAIMS_BEGIN, CLAIMS_END, claims_tables(claims))


def _between(text: str, begin: str, end: str, content: str) -> str:
    """The text with what stands between two markers replaced."""
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the README needs the lines {begin!r} and {end!r}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def tour_records() -> list[dict]:
    """The committed records of tours, by seed."""
    paths = (ROOT / "records").glob("tour-seed-*.json")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(records, key=lambda record: record["seed"])


def claim_records() -> dict[str, dict]:
    """The committed claims of the chapters, by chapter number."""
    paths = sorted((ROOT / "records").glob("claims-*.json"))
    return {path.stem[-2:]: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def main() -> int:
    """Write the README anew."""
    path = ROOT / "README.md"
    readme = with_results(path.read_text(encoding="utf-8"), tour_records(), claim_records())
    path.write_text(readme, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
