"""Where the numbers of a run go."""

import json
import sys
import types

import pytest
from toys import ToyRows, settings, train

from minimind_edu.training.logging import MetricsLog, read_metrics


class StandIn(types.ModuleType):
    """A dashboard's package that remembers what it is told."""

    def __init__(self, name):
        super().__init__(name)
        self.settings, self.lines = None, []

    def init(self, project, config):
        self.settings = config
        return self

    def log(self, line, step):
        self.lines.append((step, line))


def test_lines_are_json_and_survive_a_cut(tmp_path):
    with MetricsLog(settings(tmp_path), 0) as log:
        for step in range(1, 4):
            assert log.write(step, loss=step / 3) == {"step": step, "loss": step / 3}
        assert [line["step"] for line in log.read()] == [1, 2, 3], "lines are on the disk at once"
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        lines = read_metrics(path)
        assert lines == [json.loads(line) for line in whole.splitlines()][: len(lines)]
        assert len(lines) in (whole[:cut].count(b"\n"), whole[:cut].count(b"\n") + 1)


def test_resuming_drops_the_lines_that_come_again(tmp_path):
    with MetricsLog(settings(tmp_path), 0) as log:
        for step in range(1, 7):
            log.write(step, loss=float(step))
    with MetricsLog(settings(tmp_path), 4) as log:
        log.write(5, loss=50.0)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["loss"] for line in lines] == [1.0, 2.0, 3.0, 4.0, 50.0]


def test_a_kill_while_resuming_loses_no_line(tmp_path, monkeypatch):
    """The old lines are there under the old name until the new file has them all."""
    with MetricsLog(settings(tmp_path), 0) as log:
        for step in range(1, 7):
            log.write(step, loss=float(step))
    before = (tmp_path / "metrics.jsonl").read_bytes()

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    monkeypatch.setattr("minimind_edu.training.logging.os.replace", killed)
    with pytest.raises(Killed):
        MetricsLog(settings(tmp_path), 4)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_no_file_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, rows=ToyRows(6), validation_data=ToyRows(2), logger="tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [(event.step, event.value) for event in events.Scalars("loss")]
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [step for step, _ in logged] == [1, 2, 3]
    assert [value for _, value in logged] == pytest.approx([line["loss"] for line in lines])
    assert len(events.Scalars("validation_loss")) == 1


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
@pytest.mark.parametrize("form", ["logger", "use_wandb"])
def test_dashboards(tmp_path, monkeypatch, name, form):
    if form == "use_wandb" and name != "wandb":
        pytest.skip("--use_wandb is wandb")
    package = StandIn(name)
    monkeypatch.setitem(sys.modules, name, package)
    train(tmp_path, rows=ToyRows(6), **({"use_wandb": True} if form == "use_wandb" else {"logger": name}))
    assert package.settings["learning_rate"] == "0.01"
    assert [step for step, _ in package.lines] == [1, 2, 3]
    assert [line for _, line in package.lines] == read_metrics(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("name", ["wandb", "swanlab", "tensorboard"])
def test_a_dashboard_that_is_not_installed(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    with pytest.raises(ValueError, match=f"--logger {name} needs a package: pip install {name}") as caught:
        train(tmp_path, logger=name)
    assert "\n" not in str(caught.value)
