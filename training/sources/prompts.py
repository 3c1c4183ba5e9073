"""Prompts: what makes an example of a row, by its columns or by a template with placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from adapters_store.errors import TrainingError, UsageError
from training.examples import Place, Row, Rows
from training.sources.columns import nth, output_column, text_of, texts_of, value_of
from training.sources.sections import FieldsSection, TemplateSection
from training.suite.task import Example

SEPARATOR = "|||"


@dataclass(frozen=True)
class Braces:
    """A text with ``{column}`` placeholders; doubled braces stand for themselves."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str, what: str) -> Braces:
        """Raises UsageError, naming ``what``, for placeholders that are more than a name."""
        pieces: list[tuple[str, str | None]] = []
        try:
            for literal, name, spec, conversion in Formatter().parse(text):
                if name is not None and (not name or spec or conversion):
                    raise ValueError(f"a placeholder is the name of a column; found {name!r}")
                pieces.append((literal, name))
        except ValueError as error:
            raise UsageError(f"{what} cannot be read: {error}") from error
        return cls(tuple(pieces))

    def text(self, row: Row, place: Place) -> str:
        """The text for a row; raises TrainingError for a column that it does not have."""
        return "".join(
            literal + ("" if name is None else text_of(row, name, place))
            for literal, name in self.pieces
        )


class ColumnPrompt:
    """Columns as they are, or ``template`` filled from them."""

    def __init__(self, fields: FieldsSection, template: TemplateSection | None = None) -> None:
        self.fields = fields
        self.columns = (fields.input,) if isinstance(fields.input, str) else fields.input
        what = f"template {template.name!r}" if template and template.name else "the template"
        self.what = f", {what}" if template else ""
        self.input, self.output, self.choices = (
            None if text is None else Braces.parse(text, what)
            for text in (
                (template.input, template.output, template.answer_choices)
                if template
                else (None, None, None)
            )
        )

    def example(self, rows: Rows, index: int) -> Example:
        """The row's example; every prompt of this kind applies to every row."""
        row = rows[index]
        place = Place(rows, index, self.what)
        if self.input is None:
            text = "\n".join(text_of(row, column, place) for column in self.columns)
        else:
            text = self.input.text(row, place)
        choices = self._choices(row, place)
        outputs = self._outputs(row, choices, place)
        if self.output is None and row.get("references"):
            outputs = tuple(dict.fromkeys((*outputs, *texts_of(row, "references", place))))
        return checked(Example(text, outputs[0], outputs if outputs[1:] else (), choices), place)

    def _choices(self, row: Row, place: Place) -> tuple[str, ...]:
        if self.choices is not None:
            return split_choices(self.choices.text(row, place))
        if self.fields.choices is None:
            return texts_of(row, "choices", place) if row.get("choices") else ()
        return texts_of(row, self.fields.choices, place)

    def _outputs(self, row: Row, choices: Sequence[str], place: Place) -> tuple[str, ...]:
        if self.output is not None:
            return (self.output.text(row, place),)
        column = self.fields.output or output_column(row, place)
        value = value_of(row, column, place)
        if isinstance(value, list):
            return texts_of(row, column, place)
        is_position = isinstance(value, int) and not isinstance(value, bool)
        if choices and is_position and column not in place.rows.classes:
            return (nth(choices, value, column, place),)
        return (text_of(row, column, place),)


def split_choices(text: str) -> tuple[str, ...]:
    """The answers in a text that separates them by ``|||``."""
    return tuple(choice.strip() for choice in text.split(SEPARATOR))


def checked(example: Example, place: Place) -> Example:
    """The example; raises TrainingError for an output that is not among its choices, or no text."""
    for text in (example.input, example.output, *example.references, *example.choices):
        if not _is_unicode(text):
            raise TrainingError(f"{place}: {text!r:.60} holds half of a surrogate pair: no text")
    if example.choices and example.output not in example.choices:
        raise TrainingError(
            f"{place}: output {example.output!r} is not one of the choices {list(example.choices)}"
        )
    return example


def _is_unicode(text: str) -> bool:
    """Whether the text can be written: JSON may escape halves of pairs, such as ``\\ud800``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
