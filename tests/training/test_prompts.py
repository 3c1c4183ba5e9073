"""Prompts: placeholders and jinja, what they make of a row, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters_store.errors import TrainingError, UsageError
from training.examples import Rows
from training.mixing import num_rows
from training.recipe import TasksSection
from training.sources import load_tasks
from training.sources.planning import publishable
from training.sources.rows import HeldRows
from training.sources.sections import FieldsSection, TemplateSection
from training.sources.templates import prompts_of
from training.suite import Example

COPA = [
    {"premise": "It rained.", "choice1": "wet", "choice2": "dry", "question": "effect", "label": 0},
    {"premise": "It is wet.", "choice1": "sun", "choice2": "rain", "question": "cause", "label": 1},
]
EFFECT = (
    '{% if question == "effect" %}\n{{ premise }} So? "{{ choice1 }}" or "{{ choice2 }}" '
    "||| {{ answer_choices[label] }}\n{% endif %}"
)
CHOICES = "{{choice1}} ||| {{choice2}}"
PROMPTSOURCE = """
dataset: super_glue
subset: copa
templates:
  5f2: !Template
    answer_choices: '{{choice1}} ||| {{choice2}}'
    id: 5f2
    jinja: '{{ premise }} C1 or C2? ||| {{ [choice1, choice2][label] }}'
    metadata: !TemplateMetadata {choices_in_prompt: true, metrics: [Accuracy]}
    name: "\\u2026C1 or C2?"
    reference: ''
  7a1: !Template
    answer_choices: null
    id: 7a1
    jinja: "{% if question == \\"effect\\" %}{{ premise }} What next? ||| {{ choice1 }}{% endif %}"
    metadata: !TemplateMetadata {original_task: true}
    name: What next
    reference: ''
"""


def held(rows: list[dict[str, Any]]) -> Rows:
    """Rows in memory."""
    return HeldRows("copa", rows, range(len(rows)))


def made(template: dict[str, Any], rows: list[dict[str, Any]], index: int = 0) -> Example | None:
    """The example that a template makes of a row."""
    section = TasksSection(templates=(TemplateSection.model_validate(template),))
    ((prompt,),) = prompts_of(section).values()
    return prompt.example(held(rows), index)


def test_placeholders_are_filled_and_doubled_braces_stay() -> None:
    template = {
        "input": "{{{premise}}} -> {question}?",
        "output": "{choice1}",
        "answer_choices": "{choice1}|||{choice2}",
    }
    assert made(template, COPA) == Example("{It rained.} -> effect?", "wet", choices=("wet", "dry"))


def test_a_template_of_inputs_takes_the_output_from_its_column() -> None:
    template = {"input": "{premise}", "answer_choices": "{choice1} ||| {choice2}"}
    assert made(template, COPA, 1) == Example("It is wet.", "rain", choices=("sun", "rain"))


def test_jinja_writes_input_and_target_and_passes_over_rows_by_its_condition() -> None:
    template = {"jinja": EFFECT, "answer_choices": CHOICES}
    assert made(template, COPA) == Example(
        'It rained. So? "wet" or "dry"', "wet", choices=("wet", "dry")
    )
    assert made(template, COPA, 1) is None


def test_a_separator_inside_a_row_is_text() -> None:
    rows = [COPA[0] | {"premise": "a ||| b", "choice1": "c|||d"}]
    example = made({"jinja": "{{premise}} ||| {{choice1}}", "answer_choices": CHOICES}, rows)
    assert example == Example("a ||| b", "c|||d", choices=("c|||d", "dry"))


def test_filters_of_promptsource_are_there_and_draw_the_same_each_time() -> None:
    template = {"jinja": "{{ words | choice }} ||| {{ (words | most_frequent)[0] }}"}
    rows = [{"words": ["a", "b", "b", "c"]} for _ in range(20)]
    found = [made(template, rows, index) for index in range(20)]
    assert found == [made(template, rows, index) for index in range(20)]
    assert {example.output for example in found if example} == {"b"}
    assert len({example.input for example in found if example}) > 1


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        (
            {"name": "t", "input": "{premis}"},
            TrainingError,
            r"copa, row 0, template 't': there is no column 'premis'.*did you mean 'premise'\?",
        ),
        ({"input": "{premise.real}"}, TrainingError, r"no column 'premise\.real'"),
        ({"name": "t", "input": "{premise!r}"}, UsageError, "template 't' cannot be read"),
        ({"input": "{premise"}, UsageError, "the template cannot be read: expected '}'"),
        ({"input": "{}"}, UsageError, "a placeholder is the name of a column"),
        (
            {"name": "t", "jinja": "{{premis}} ||| x"},
            TrainingError,
            r"row 0, template 't' cannot be filled: UndefinedError: 'premis' is undefined; "
            r"the row has \['premise'",
        ),
        ({"jinja": "{{premise}}"}, UsageError, r"has no \|\|\| between its input and its target"),
        ({"jinja": "{% if %} ||| x"}, UsageError, "is no jinja"),
        ({"jinja": "a ||| b ||| c"}, TrainingError, r"wrote \|\|\| 2 times; expected once"),
        ({"jinja": "{{ 1/0 }} ||| c"}, TrainingError, "ZeroDivisionError"),
        ({"jinja": "{{ 5 | xmlattr }} ||| c"}, TrainingError, "AttributeError"),
        (
            {"jinja": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }} ||| c"},
            TrainingError,
            "RecursionError",
        ),
        ({"jinja": "{{" + "(" * 2000 + "1" + ")" * 2000 + "}} ||| c"}, UsageError, "is no jinja"),
        (
            {"jinja": "{{ ''.__class__.__mro__ }} ||| x"},
            TrainingError,
            "SecurityError",
        ),
        ({"jinja": "{{ [].append(1) }} ||| x"}, TrainingError, "SecurityError"),
        ({"jinja": "{{ range(10**9) | list }} ||| x"}, TrainingError, "OverflowError"),
        (
            {"jinja": "{{premise}} ||| other", "answer_choices": CHOICES},
            TrainingError,
            r"output 'other' is not one of the choices \['wet', 'dry'\]",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(
    template: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made(template, COPA)


@pytest.mark.parametrize(
    "given",
    [{}, {"input": "a", "jinja": "a ||| b"}, {"jinja": "a ||| b", "output": "c"}, {"prompt": "a"}],
)
def test_a_template_has_one_style(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TemplateSection.model_validate(given)


def copa_section(folder: Path, **more: Any) -> TasksSection:
    """COPA rows in a file, under PromptSource's templates."""
    rows = [row | {"input": "unused"} for row in COPA * 4]
    (folder / "copa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "copa.yaml").write_text(PROMPTSOURCE, encoding="utf-8")
    given = {
        "source": "jsonl",
        "path": str(folder / "copa.jsonl"),
        "name": "copa",
        "templates": str(folder / "copa.yaml"),
    }
    return TasksSection.model_validate(given | more)


def test_each_template_of_promptsource_is_a_task_and_rows_it_passes_over_are_counted(
    tmp_path: Path,
) -> None:
    first, second = load_tasks(copa_section(tmp_path))
    assert (first.name, second.name) == ("copa.c1-or-c2", "copa.what-next")
    assert first.train[1] == Example("It is wet. C1 or C2?", "rain", choices=("sun", "rain"))
    assert len(first.train) == 8
    assert list(second.train) == [Example("It rained. What next?", "wet")] * 4
    assert second.train.num_skipped == 4


def test_all_templates_may_make_one_task(tmp_path: Path) -> None:
    (task,) = load_tasks(copa_section(tmp_path, template_tasks="one"))
    assert task.name == "copa"
    assert len(task.train) == 8 + 4
    assert num_rows(task.train) == 6
    dev = copa_section(tmp_path, template_tasks="one", splits={"dev": "train"})
    drawn = [load_tasks(dev.model_copy(update={"seed": seed}))[0].dev for seed in range(4)]
    assert all(4 <= len(part) <= 8 for part in drawn)
    assert len({tuple(row.input for row in part) for part in drawn}) > 1
    assert list(load_tasks(dev)[0].dev) == list(drawn[0])


def test_a_cap_for_the_data_set_is_divided_among_its_templates(tmp_path: Path) -> None:
    first, second = load_tasks(copa_section(tmp_path, max_train_per_dataset=6))
    assert (len(first.train), len(second.train)) == (3, 3)
    first, second = load_tasks(copa_section(tmp_path, max_train_per_dataset=6, num_train=2))
    assert (len(first.train), len(second.train)) == (2, 2)


def test_templates_that_are_tasks_need_names_of_their_own(tmp_path: Path) -> None:
    twice = [{"input": "{premise}"}, {"name": "b", "input": "{premise}"}]
    with pytest.raises(UsageError, match=r"need names of their own: \[None, 'b'\]"):
        load_tasks(copa_section(tmp_path, templates=twice))
    alike = [{"name": "a b", "input": "{premise}"}, {"name": "a-b", "input": "{premise}"}]
    with pytest.raises(TrainingError, match=r"several tasks named \['copa\.a-b'\]"):
        load_tasks(copa_section(tmp_path, templates=alike))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no templates"),
        ("a: !Other {}", "cannot read templates"),
        ("- {jinja: a, name: [1]}", r"0?.*name"),
        ("templates: {x: 3}", "a template that is no mapping: 3"),
        ("!!python/object/apply:os.system ['true']", "cannot read templates"),
    ],
)
def test_a_file_of_templates_that_is_none_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    section = copa_section(tmp_path)
    (tmp_path / "copa.yaml").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_tasks(section)


def test_names_are_made_publishable() -> None:
    assert publishable("super_glue.…What / Next?") == "super_glue.-what-next"
    long = publishable("a" * 80), publishable("a" * 81)
    assert [len(name) for name in long] == [63, 63]
    assert long[0] != long[1]
    assert publishable("…") == "task"


def test_columns_are_joined_in_the_order_they_are_named() -> None:
    section = TasksSection(fields=FieldsSection(input=("choice2", "premise"), output="question"))
    ((prompt,),) = prompts_of(section).values()
    assert prompt.example(held(COPA), 0) == Example("dry\nIt rained.", "effect")
