"""The option tables of the pages on foreign formats, from the code's own.

``python tests/adapters_store/formats/support_table.py`` writes them into the pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from adapters_store.formats.mttl.settings import ExpertSettings, ReleaseSettings, SelectorSettings
from adapters_store.formats.options import rule_of
from adapters_store.formats.peft.settings import SETTINGS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "registry"
BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"
PAGES: dict[str, Iterable[type[BaseModel]]] = {
    "peft.md": SETTINGS.values(),
    "mttl.md": (ReleaseSettings, ExpertSettings, SelectorSettings),
}


def render(models: Iterable[type[BaseModel]]) -> str:
    """One table for every class of settings, with the options that it adds or changes."""
    classes = dict.fromkeys(
        base
        for settings in models
        for base in reversed(settings.__mro__)
        if issubclass(base, BaseModel) and base is not BaseModel
    )
    lines: list[str] = []
    for settings in classes:
        own = [name for name in settings.model_fields if name in settings.__annotations__]
        if not own:
            continue
        title = str(settings.__doc__).splitlines()[0].rstrip(".")
        lines += ["", f"### {title}", "", "| option | verdict | rule |", "| --- | --- | --- |"]
        for name in own:
            field = settings.model_fields[name]
            rule = rule_of(field.metadata)
            lines.append(f"| `{field.alias or name}` | {rule.verdict} | {rule.text} |")
    return "\n".join(lines[1:]) + "\n"


if __name__ == "__main__":
    for page, models in PAGES.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
        whole = f"{text[:start]}\n{render(models)}\n{text[stop:]}"
        (DOCS / page).write_text(whole, encoding="utf-8")
