"""The task suite: reproducible, disjoint between splits, within budget, and right."""

import csv
import email.utils
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from training import suite
from training.suite import HELD_OUT, SEEN, TASKS, Example, generate
from training.suite import fields as f
from training.suite import transforms as t
from training.suite.fields import Field
from training.suite.generate import UnknownTaskError
from training.suite.lexicon import SPLITS, Lexicon, Split, lexicon, split_of
from training.suite.transforms import Transform

ALL = (*SEEN, *HELD_OUT)
FIRST_EXAMPLES_DIGEST = "22ad43da4ecbcddadc7e05c81a9bacb9d2cdbc75b1624952a5a4a188af084111"
PRINT_DIGEST = """
import hashlib
from training.suite import TASKS, generate
digest = hashlib.sha256()
for task in TASKS:
    for split in ("train", "dev", "test"):
        digest.update(repr(generate(task, split, 20, 7)).encode())
print(digest.hexdigest())
"""


def vocabulary(words: Lexicon) -> set[str]:
    fields = ("first_names", "last_names", "cities", "domains", "services", "products", "nouns")
    return {word.lower() for field in fields for word in getattr(words, field)}


def test_exports_are_the_documented_ones() -> None:
    assert set(suite.__all__) == {
        "HELD_OUT",
        "SEEN",
        "TASKS",
        "Example",
        "SuiteTask",
        "generate",
    }


def test_suite_has_the_promised_size_and_valid_names() -> None:
    assert len(SEEN) >= 36
    assert len(HELD_OUT) >= 8
    assert tuple(TASKS) == ALL
    assert len(set(ALL)) == len(ALL)
    for name, task in TASKS.items():
        assert task.name == name
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name)
        assert task.description
        assert "\n" not in task.description


# Reproducibility


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_examples_do_not_depend_on_the_process(hash_seed: str) -> None:
    """Also frozen: datasets and scores recorded elsewhere refer to exactly these examples."""
    command = [sys.executable, "-c", PRINT_DIGEST]
    root = str(Path(suite.__file__).parents[2])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": root}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == FIRST_EXAMPLES_DIGEST


def test_examples_depend_on_task_split_and_seed() -> None:
    reference = generate("json-name", "train", 20, seed=1)
    assert generate("json-name", "train", 20, seed=1) == reference
    assert generate("json-name", "train", 20, seed=2) != reference
    assert generate("json-name", "dev", 20, seed=1) != reference
    assert generate("json-email", "train", 20, seed=1) != reference


def test_a_longer_draw_extends_a_shorter_one() -> None:
    assert generate("kv-city", "dev", 30, seed=5)[:10] == generate("kv-city", "dev", 10, seed=5)


@pytest.mark.parametrize("task", ALL)
def test_inputs_are_distinct_inside_one_call(task: str) -> None:
    examples = generate(task, "test", 500, seed=11)
    assert len({example.input for example in examples}) == 500


def test_an_exhausted_task_repeats_instead_of_hanging() -> None:
    examples = generate("clock-12h", "train", 2000, seed=0)
    assert len(examples) == 2000
    assert len({example.input for example in examples}) > 1400


# Splits


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_vocabularies_are_disjoint(one: Split, other: Split) -> None:
    assert not vocabulary(lexicon(one)) & vocabulary(lexicon(other))


def test_training_vocabulary_is_large() -> None:
    train = lexicon("train")
    for field in ("first_names", "last_names", "cities", "domains", "services", "products"):
        assert len(set(getattr(train, field))) >= 3000


def test_a_word_is_in_the_same_split_whatever_its_case() -> None:
    assert split_of("Tolen") == split_of("tolen") == split_of("TOLEN")


@pytest.mark.parametrize(
    "task", ["json-name", "kv-email-upper", "log-service", "url-host", "phrase-snake", "kv-city"]
)
def test_copied_answers_of_one_split_never_occur_in_another(task: str) -> None:
    answers = {
        split: {example.output for example in generate(task, split, 1500, seed=3)}
        for split in SPLITS
    }
    assert not answers["train"] & answers["test"]
    assert not answers["train"] & answers["dev"]
    assert not answers["dev"] & answers["test"]


# Budgets


@pytest.mark.parametrize("split", SPLITS)
def test_lengths_stay_within_the_budget(split: Split) -> None:
    num_input_bytes: list[int] = []
    num_output_bytes: list[int] = []
    num_non_ascii = 0
    for task in ALL:
        for example in generate(task, split, 200, seed=2):
            num_input_bytes.append(len(example.input.encode()))
            num_output_bytes.append(len(example.output.encode()))
            num_non_ascii += not (example.input + example.output).isascii()
    assert max(num_input_bytes) <= 80
    assert max(num_output_bytes) <= 40
    assert min(num_output_bytes) >= 1
    assert statistics.median(num_input_bytes) <= 48
    assert statistics.median(num_output_bytes) <= 14
    assert num_non_ascii <= 0.01 * len(num_input_bytes)


def test_generation_is_fast_enough_to_feed_training() -> None:
    lexicon("train")
    start_s = time.perf_counter()
    for task in ALL:
        generate(task, "train", 200, seed=9)
    rate = 200 * len(ALL) / (time.perf_counter() - start_s)
    assert rate > 3000, f"{rate:.0f} examples/s"


# Composition


@pytest.mark.parametrize("task", HELD_OUT)
def test_held_out_tasks_recombine_seen_skills(task: str) -> None:
    num_seen = Counter(skill for name in SEEN for skill in set(TASKS[name].skills))
    skills = TASKS[task].skills
    assert all(num_seen[skill] >= 2 for skill in skills), {s: num_seen[s] for s in skills}
    assert all(set(TASKS[name].skills) != set(skills) for name in SEEN)


def test_no_two_tasks_share_a_composition() -> None:
    compositions = [task.skills for task in TASKS.values()]
    assert len(set(compositions)) == len(compositions)


@pytest.mark.parametrize("task", ALL)
def test_labels_are_all_outputs_of_a_label_task(task: str) -> None:
    outputs = {example.output for example in generate(task, "test", 300, seed=4)}
    labels = TASKS[task].labels
    if labels:
        assert outputs == set(labels)
    else:
        assert len(outputs) > 10


@pytest.mark.parametrize("task", ALL)
def test_the_output_is_a_function_of_the_input(task: str) -> None:
    outputs: dict[str, str] = {}
    for seed in range(4):
        for example in generate(task, "train", 500, seed):
            assert outputs.setdefault(example.input, example.output) == example.output


def test_identity_tasks_differ_from_their_neighbours_only_by_skill() -> None:
    """No task is recognisable from its input: the same data serves several tasks."""
    shapes = [
        {tuple(sorted(json.loads(e.input))) for e in generate(task, "train", 400, seed=1)}
        for task in ("json-name", "json-email", "json-city-upper")
    ]
    assert all(one & other for one, other in pairwise(shapes))


# Right answers: transforms against hand-written pairs

GOLDENS: tuple[tuple[Transform, Field, str, str], ...] = (
    (t.IDENTITY, f.EMAIL, "mira@vastor.co.uk", "mira@vastor.co.uk"),
    (t.UPPER, f.EMAIL, "m.tolen@vastor.com", "M.TOLEN@VASTOR.COM"),
    (t.UPPER, f.SERVICE, "pay-api", "PAY-API"),
    (t.TITLE, f.PHRASE, "red voru line", "Red Voru Line"),
    (t.SNAKE, f.NAME, "Mira Tolen", "mira_tolen"),
    (t.SNAKE, f.PHRASE, "red voru line", "red_voru_line"),
    (t.KEBAB, f.PHRASE, "red voru line", "red-voru-line"),
    (t.CAMEL, f.PHRASE, "red voru line", "redVoruLine"),
    (t.TRIM, f.PADDED_PHRASE, "  red voru ", "red voru"),
    (t.INITIALS, f.NAME, "Mira Tolen", "M.T."),
    (t.LAST_FIRST, f.NAME, "Mira Tolen", "Tolen, Mira"),
    (t.FIRST_LAST, f.NAME_LAST_FIRST, "Tolen, Mira", "Mira Tolen"),
    (t.DOMAIN, f.EMAIL, "m.tolen@vastor.co.uk", "vastor.co.uk"),
    (t.PREFIX, f.PHONE, "+49 305 5281", "+49"),
    (t.PREFIX, f.PHONE, "+351-305-0081", "+351"),
    (t.EXTENSION, f.FILE, "plan-12.tar.gz", "gz"),
    (t.TO_ISO, f.US_DATE, "03/05/2024", "2024-03-05"),
    (t.TO_ISO, f.DE_DATE, "05.03.2024", "2024-03-05"),
    (t.TO_US, f.DATE, "2024-03-05", "03/05/2024"),
    (t.TO_DE, f.DATE, "2024-03-05", "05.03.2024"),
    (t.TO_LONG, f.DATE, "2025-03-04", "4 Mar 2025"),
    (t.TO_LONG, f.DATE, "1999-12-31", "31 Dec 1999"),
    (t.DECIMAL_COMMA, f.AMOUNT, "1,204.50", "1.204,50"),
    (t.DECIMAL_COMMA, f.AMOUNT, "0.07", "0,07"),
    (t.DECIMAL_POINT, f.DE_AMOUNT, "12.204,50", "12,204.50"),
    (t.TO_CODE, f.MONEY, "$12.50", "12.50 USD"),
    (t.TO_CODE, f.MONEY, "C$1,012.50", "1,012.50 CAD"),
    (t.TO_CODE, f.MONEY, "A$3.00", "3.00 AUD"),
    (t.TO_CODE, f.MONEY, "R$3.00", "3.00 BRL"),
    (t.TO_CODE, f.MONEY, "€9.99", "9.99 EUR"),
    (t.TO_CODE, f.MONEY, "£0.99", "0.99 GBP"),
    (t.DROP_KILO, f.QUANTITY, "12 km", "12000 m"),
    (t.DROP_KILO, f.QUANTITY, "1.5 kg", "1500 g"),
    (t.DROP_KILO, f.QUANTITY, "80.4 kHz", "80400 Hz"),
    (t.TO_12H, f.CLOCK, "00:05", "12:05 AM"),
    (t.TO_12H, f.CLOCK, "11:59", "11:59 AM"),
    (t.TO_12H, f.CLOCK, "12:00", "12:00 PM"),
    (t.TO_12H, f.CLOCK, "14:30", "2:30 PM"),
    (t.SEVERITY_LABEL, f.LEVEL, "INFO", "ok"),
    (t.SEVERITY_LABEL, f.LEVEL, "warn", "warning"),
    (t.SEVERITY_LABEL, f.LEVEL, "WARNING", "warning"),
    (t.SEVERITY_LABEL, f.LEVEL, "ERR", "critical"),
    (t.SEVERITY_LABEL, f.LEVEL, "fatal", "critical"),
    (t.TO_BOOL, f.FLAG, "Yes", "true"),
    (t.TO_BOOL, f.FLAG, "1", "true"),
    (t.TO_BOOL, f.FLAG, "OFF", "false"),
    (t.TO_BOOL, f.FLAG, "Disabled", "false"),
    (t.REDACT, f.EMAIL, "mira@vastor.com", "<email>"),
    (t.REDACT, f.PHONE, "+49 305 5281", "<phone>"),
    (t.REDACT, f.NAME, "Mira Tolen", "M. T."),
    (t.REDACT, f.ID, "AB-4821", "<id>"),
)


@pytest.mark.parametrize(
    ("transform", "field", "value", "expected"),
    GOLDENS,
    ids=[f"{transform.name}:{value}" for transform, _, value, _ in GOLDENS],
)
def test_transforms_give_the_hand_written_answer(
    transform: Transform, field: Field, value: str, expected: str
) -> None:
    assert transform.apply(value, field) == expected


def test_every_transform_of_the_suite_has_a_golden() -> None:
    assert {task.skills[-1] for task in TASKS.values()} == {row[0].name for row in GOLDENS}


def test_redacting_a_public_field_is_an_error() -> None:
    with pytest.raises(ValueError, match="city"):
        t.REDACT.apply("Vastor", f.CITY)


# Right answers: whole tasks against the standard library's parsers


def json_value(text: str, key: str) -> str:
    return str(json.loads(text)[key])


def kv_value(text: str, key: str) -> str:
    return dict(pair.split("=", 1) for pair in text.split("; "))[key]


def csv_value(text: str, key: str) -> str:
    (row,) = csv.DictReader(text.splitlines(), delimiter=";")
    return str(row[key])


def mail_value(text: str, key: str) -> str:
    name, address = email.utils.parseaddr(text.partition(": ")[2])
    return {"name": name, "email": address}[key]


def log_value(text: str, key: str) -> str:
    date, _, level, service, *_ = text.split(" ")
    return {"date": date, "level": level, "service": service.removesuffix(":")}[key]


def url_value(text: str, key: str) -> str:
    url = urllib.parse.urlsplit(text)
    return {"host": str(url.hostname), "file": url.path.rpartition("/")[2]}[key]


READERS: dict[str, Callable[[str, str], str]] = {
    "json": json_value,
    "kv": kv_value,
    "csv": csv_value,
    "mail": mail_value,
    "log": log_value,
    "url": url_value,
    "plain": lambda text, key: text,
}
TRANSFORMS = {transform.name: transform for transform, *_ in GOLDENS}
FIELDS = {field.name: field for field in vars(f).values() if isinstance(field, Field)}


@pytest.mark.parametrize("task", [name for name in ALL if TASKS[name].skills[0] in READERS])
def test_extraction_agrees_with_a_standard_parser(task: str) -> None:
    source, field, transform = TASKS[task].skills
    for example in generate(task, "test", 200, seed=6):
        value = READERS[source](example.input, field)
        assert example.output == TRANSFORMS[transform].apply(value, FIELDS[field])


EMAIL_PATTERN = r"[a-z0-9.]+@[a-z]+(\.[a-z]{2,3})+"
PHONE_PATTERN = r"\+\d{1,3}[ -]\d{3}[ -]\d{4}"
NAME_PATTERN = r"([A-Z])[a-z]+ ([A-Z])[a-z]+"
SUBSTITUTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "text-email-redact": ((EMAIL_PATTERN, "<email>"),),
    "text-phone-redact": ((PHONE_PATTERN, "<phone>"),),
    "text-name-redact": ((NAME_PATTERN, r"\1. \2."),),
    "text-name-phone-redact": ((NAME_PATTERN, r"\1. \2."), (PHONE_PATTERN, "<phone>")),
    "text-id-redact": ((r"([A-Z]-)?\d+", "<id>"),),
    "text-email-phone-redact": ((EMAIL_PATTERN, "<email>"), (PHONE_PATTERN, "<phone>")),
}


@pytest.mark.parametrize("task", SUBSTITUTIONS)
def test_redaction_agrees_with_regular_expressions(task: str) -> None:
    for example in generate(task, "test", 300, seed=6):
        expected = example.input
        for pattern, replacement in SUBSTITUTIONS[task]:
            expected = re.sub(pattern, replacement, expected)
        assert example == Example(example.input, expected)
        assert example.input != example.output


def test_a_redaction_leaves_other_contacts_alone() -> None:
    examples = generate("text-email-redact", "train", 300, seed=1)
    num_with_phone = sum(bool(re.search(PHONE_PATTERN, example.output)) for example in examples)
    assert 10 < num_with_phone < 150


def test_sentence_extraction_agrees_with_regular_expressions() -> None:
    for example in generate("text-email", "test", 300, seed=6):
        found = re.search(EMAIL_PATTERN, example.input)
        assert found is not None
        assert found[0] == example.output
    for example in generate("text-money-code", "test", 300, seed=6):
        found = re.search(r"(?:C|A|R)?[$€£][\d,.]+\d", example.input)
        assert found is not None
        assert t.TO_CODE.apply(found[0], f.MONEY) == example.output


def test_every_task_is_checked_against_an_independent_reading() -> None:
    checked = {name for name in ALL if TASKS[name].skills[0] in READERS} | set(SUBSTITUTIONS)
    assert checked | {"text-email", "text-money-code"} == set(ALL)


# Errors


def test_an_unknown_task_names_the_nearest_one() -> None:
    with pytest.raises(UnknownTaskError, match="json-email-upper") as caught:
        generate("json-emial-upper", "train", 1, seed=0)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(UnknownTaskError, match="did you mean"):
        generate("", "train", 1, seed=0)


def test_an_unknown_split_and_a_negative_count_are_errors() -> None:
    with pytest.raises(ValueError, match="train, dev, test"):
        generate("json-name", "valid", 1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-1"):
        generate("json-name", "train", -1, seed=0)
    assert generate("json-name", "train", 0, seed=0) == []
