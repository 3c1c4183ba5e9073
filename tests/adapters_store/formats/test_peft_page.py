"""The page on PEFT says what the code's tables say."""

from __future__ import annotations

from peft_support_table import BEGIN, END, PAGE, render

from adapters_store.formats.peft import PEFT_METHODS
from adapters_store.formats.peft.settings import SETTINGS


def test_the_option_tables_are_those_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    found = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert found.strip() == render().strip(), (
        "run python tests/adapters_store/formats/peft_support_table.py"
    )


def test_every_method_has_settings_and_a_line_on_the_page():
    assert set(SETTINGS) == set(PEFT_METHODS)
    text = PAGE.read_text(encoding="utf-8")
    assert [method for method in PEFT_METHODS if f"`{method}`" not in text] == []
