"""Commands run in this process, small files, and a small model."""

import pytest
from small_files import SENTENCES, TINY, A, U, write_lines

from minimind_edu.cli import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MINIMIND_EDU_CACHE", str(tmp_path_factory.getbasetemp() / "cli-cache"))


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns its exit code and what it wrote."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(run):
    """Run a command that must fail: exit code 2, no traceback; returns its message."""

    def call(*words, lines=1):
        code, out, errors = run(*words)
        assert code == 2 and "Traceback" not in errors and out == "", errors
        assert errors.startswith("minimind-edu: ") and len(errors.splitlines()) == lines, errors
        return errors

    return call


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with small data files of every kind."""
    folder = tmp_path_factory.mktemp("files")
    write_lines(folder / "pretrain.jsonl", [{"text": text} for text in SENTENCES])
    write_lines(folder / "sft.jsonl", [{"conversations": [U, A | {"content": text}]} for text in SENTENCES])
    questions = [
        {"conversations": [U], "gt": text, "seen": n % 2 == 0} for n, text in enumerate(SENTENCES[:4])
    ]
    write_lines(folder / "questions.jsonl", questions)
    (folder / "plain.txt").write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def trained(files, tmp_path_factory):
    """The folder of a finished pretraining run."""
    folder = tmp_path_factory.mktemp("trained")
    cache = f"--cache_dir={folder / 'cache'}"
    assert (
        main(
            [
                "pretrain",
                f"--data_path={files / 'pretrain.jsonl'}",
                f"--out_dir={folder / 'run'}",
                cache,
                *TINY,
            ]
        )
        == 0
    )
    return folder / "run"
