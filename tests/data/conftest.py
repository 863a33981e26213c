import gc
from types import SimpleNamespace

import pytest

from clusterseg.cli.main import main


@pytest.fixture
def run(capfd, monkeypatch):
    """run(arguments…, cwd=…): `clusterseg data` in this process, its exit code and output."""

    def called(*arguments, cwd):
        monkeypatch.chdir(cwd)
        try:
            main(["data", *arguments])
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            gc.unfreeze()
        printed = capfd.readouterr()
        return SimpleNamespace(returncode=code, stdout=printed.out, stderr=printed.err)

    return called
