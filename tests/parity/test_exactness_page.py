"""The page on exact answers names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`")


def test_every_test_that_the_page_names_exists() -> None:
    file, num_tests = "", 0
    for found, test in NAME.findall((ROOT / "docs/exactness.md").read_text()):
        file = found or file
        text = (ROOT / file).read_text()
        assert f"def {test}(" in text or not test, f"{file}::{test}"
        num_tests += bool(test)
    assert num_tests > 10
