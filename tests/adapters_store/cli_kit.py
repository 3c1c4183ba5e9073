"""Running ``patchbay adapters`` in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patchbay.cli import main


class Cli:
    """Calls the command; each call gives exit code, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        code = main(["adapters", *map(str, arguments)])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *arguments: object, code: int = 0) -> Any:
        """The JSON on stdout of a call that must exit with ``code``."""
        found, out, err = self(*arguments, "--json")
        assert found == code, err
        return json.loads(out)
