"""Where a run's numbers go: ``metrics.jsonl`` always, and one of the usual dashboards if asked."""

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from minimind_edu.training.config import TrainConfig


class MetricsLog:
    """Appends one JSON object a line to ``metrics.jsonl`` and forwards it to an optional dashboard.

    Args:
        config: gives the folder and the dashboard.
        resume_step: lines of later steps are dropped: they will be trained, and written, again.

    Raises:
        ValueError: the dashboard's package is not installed.
    """

    def __init__(self, config: TrainConfig, resume_step: int) -> None:
        self.path = Path(config.out_dir) / "metrics.jsonl"
        kept = [line for line in self.read() if line["step"] <= resume_step] if resume_step else []
        # Written beside and renamed, so that a kill at this moment loses no line.
        beside = self.path.with_name(".metrics.jsonl.tmp")
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(beside, self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._dashboard = _open_dashboard("wandb" if config.use_wandb else config.logger, config)

    def read(self) -> list[dict[str, float]]:
        """All whole lines written so far (a kill may leave half a line at the end)."""
        return read_metrics(self.path)

    def write(self, step: int, **numbers: float) -> dict[str, float]:
        """Add one line and return it."""
        # JSON has no NaN and no infinity (a gradient norm is infinite where float16 overflowed).
        line = {"step": step, **{k: v if math.isfinite(v) else None for k, v in numbers.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._dashboard is not None:
            self._dashboard(line)
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl``; a last line that a kill cut off is left out."""
    lines = []
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


def _open_dashboard(name: str, config: TrainConfig):  # noqa: ANN202 (a function of one line, or None)
    """A function that takes one line of metrics, or None."""
    if name == "none":
        return None
    project, settings = "minimind_edu", {key: str(value) for key, value in vars(config).items()}
    try:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(Path(config.out_dir) / "tensorboard"))

            def to_tensorboard(line: dict[str, float]) -> None:
                for key, value in line.items():
                    if value is not None:
                        writer.add_scalar(key, value, line["step"])
                writer.flush()

            return to_tensorboard
        if name == "wandb":
            import wandb as dashboard
        else:
            import swanlab as dashboard
    except ImportError as error:
        package = {"tensorboard": "tensorboard", "wandb": "wandb", "swanlab": "swanlab"}[name]
        raise ValueError(f"--logger {name} needs a package: pip install {package} ({error})") from None
    run = dashboard.init(project=project, config=settings)
    return lambda line: run.log(line, step=line["step"])
