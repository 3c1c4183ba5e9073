"""The option tables in docs/registry/peft.md, from the code's own.

``python tests/adapters_store/formats/peft_support_table.py`` writes them into the page.
"""

from __future__ import annotations

from pathlib import Path

from adapters_store.formats.peft.settings import SETTINGS, Settings, rule_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "registry" / "peft.md"
BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"


def render() -> str:
    """One table for every class of settings, with the options that it adds or changes."""
    classes = dict.fromkeys(
        base
        for settings in SETTINGS.values()
        for base in reversed(settings.__mro__)
        if issubclass(base, Settings)
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
    text = PAGE.read_text(encoding="utf-8")
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:start]}\n{render()}\n{text[stop:]}", encoding="utf-8")
