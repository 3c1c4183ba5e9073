"""The page on AdapterHub says what the code does, option by option."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from adapters_store.formats.adapterhub.activations import ACTIVATIONS
from adapters_store.formats.adapterhub.bottleneck import Inexpressible, what_it_reads
from adapters_store.formats.adapterhub.export import FILLS
from adapters_store.formats.adapterhub.format import STRANGERS
from adapters_store.formats.adapterhub.head import CLASSIFIERS, LANGUAGE_MODELS, STATIC
from adapters_store.formats.adapterhub.layout import LAYOUTS
from adapters_store.formats.adapterhub.methods import METHODS
from adapters_store.formats.adapterhub.options import REQUIRED, Option

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "registry" / "adapterhub.md").read_text(encoding="utf-8")
VERDICTS = {"converts": "convert", "ignored": "accept"}


def table(heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading, cell by cell."""
    section = PAGE.split(f"{heading}\n", 1)[1]
    lines = re.search(r"^\|.*?(?=\n\n|\Z)", section, flags=re.DOTALL | re.MULTILINE)
    assert lines is not None
    rows = lines.group(0).splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def row(option: Option) -> list[str]:
    default = "required" if option.default is REQUIRED else f"`{json.dumps(option.default)}`"
    verdict = VERDICTS.get(option.handling)
    if verdict is None:
        known = " or ".join(f"`{json.dumps(value)}`" for value in option.allowed)
        verdict = f"reject but {known}"
    return [f"`{option.name}`", default, verdict, option.rule]


@pytest.mark.parametrize("method", METHODS)
def test_every_option_stands_on_the_page_with_its_rule(method: str) -> None:
    assert table(f"### Options of `{method}`") == [row(option) for option in METHODS[method][0]]


def test_the_equations_are_those_of_the_code() -> None:
    both = (True, False)
    expected = {}
    for parallel, before, after, residual in itertools.product(
        both, both, both, (*both, "post_add")
    ):
        options = {
            "is_parallel": parallel,
            "original_ln_before": before,
            "original_ln_after": after,
            "residual_before_ln": residual,
        }
        found = [what_it_reads(options, is_post_norm=is_post) for is_post in (True, False)]
        key = (json.dumps(parallel), json.dumps(before), json.dumps(after), json.dumps(residual))
        expected[key] = [
            f"reject: {one.why}" if isinstance(one, Inexpressible) else f"`{one}`" for one in found
        ]
    seen = {}
    for *flags, post_norm, pre_norm in table("## Equations of bottlenecks"):
        choices = [["true", "false", '"post_add"'] if flag == "any" else [flag] for flag in flags]
        for key in itertools.product(*choices):
            if key in expected:
                assert key not in seen
                seen[key] = [post_norm, pre_norm]
    assert seen == expected


def test_activations_stand_on_the_page() -> None:
    listed = {
        name: activation.strip("`")
        for names, activation in table("## Activations")
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert listed == ACTIVATIONS


def test_types_of_models_stand_on_the_page() -> None:
    expected = [
        [
            f"`{model_type}`",
            "no" if layout.no_prompts else "yes",
            f"`{layout.pooling}`" if layout.pooling else "rejected",
        ]
        for model_type, layout in LAYOUTS.items()
    ]
    assert table("## Types of models") == expected


def test_heads_and_other_files_stand_on_the_page() -> None:
    for name in (*CLASSIFIERS, *LANGUAGE_MODELS, *STATIC, *STRANGERS):
        assert f"`{name}`" in PAGE, name


def test_exports_stand_on_the_page() -> None:
    assert [cells[0] for cells in table("## Export")] == [f"`{name}`" for name in (*FILLS, "head")]
