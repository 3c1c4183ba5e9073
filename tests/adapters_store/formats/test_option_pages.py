"""The pages on foreign formats say what the code's tables say."""

from __future__ import annotations

import pytest
from support_table import BEGIN, DOCS, END, PAGES, render

from adapters_store.formats.mttl import release
from adapters_store.formats.mttl.experts import METHODS
from adapters_store.formats.peft import PEFT_METHODS
from adapters_store.formats.peft.settings import SETTINGS


@pytest.mark.parametrize("page", PAGES)
def test_the_option_tables_are_those_of_the_code(page: str):
    text = (DOCS / page).read_text(encoding="utf-8")
    found = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert found.strip() == render(PAGES[page]).strip(), (
        "run python tests/adapters_store/formats/support_table.py"
    )


def test_every_method_has_settings_and_a_line_on_its_page():
    assert set(SETTINGS) == set(PEFT_METHODS)
    peft = (DOCS / "peft.md").read_text(encoding="utf-8")
    assert [method for method in PEFT_METHODS if f"`{method}`" not in peft] == []
    mttl = (DOCS / "mttl.md").read_text(encoding="utf-8")
    methods = [*release.METHODS, *METHODS]
    assert [method for method in methods if f"`{method}`" not in mttl] == []
