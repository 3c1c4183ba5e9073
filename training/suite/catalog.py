"""The suite itself: one row per task, split into tasks to train on and tasks to hold out."""

import random

from training.suite import fields as f
from training.suite import sources as s
from training.suite import transforms as t
from training.suite.fields import Field
from training.suite.lexicon import Lexicon
from training.suite.sources import Segment, Source
from training.suite.task import Example, SuiteTask
from training.suite.transforms import Transform

MAX_INPUT_BYTES = 80
MAX_OUTPUT_BYTES = 40

Row = tuple[str, Source, tuple[Field, ...], Transform, str]

_SEEN_ROWS: tuple[Row, ...] = (
    ("json-name", s.JSON, (f.NAME,), t.IDENTITY, "Extract the name from a JSON record"),
    ("json-name-initials", s.JSON, (f.NAME,), t.INITIALS, "Initials of the name in JSON"),
    ("json-city-upper", s.JSON, (f.CITY,), t.UPPER, "City of a JSON record in capitals"),
    ("json-email", s.JSON, (f.EMAIL,), t.IDENTITY, "Extract the e-mail from a JSON record"),
    ("json-date-us", s.JSON, (f.DATE,), t.TO_US, "Date of a JSON record as MM/DD/YYYY"),
    ("json-amount-de", s.JSON, (f.AMOUNT,), t.DECIMAL_COMMA, "JSON amount with decimal comma"),
    ("json-phone-prefix", s.JSON, (f.PHONE,), t.PREFIX, "Dialling prefix of a JSON phone number"),
    ("json-active-bool", s.JSON, (f.FLAG,), t.TO_BOOL, "JSON yes/no flag as true or false"),
    ("kv-city", s.KV, (f.CITY,), t.IDENTITY, "Extract the city from a key=value line"),
    ("kv-email-upper", s.KV, (f.EMAIL,), t.UPPER, "E-mail of a key=value line in capitals"),
    ("kv-name-snake", s.KV, (f.NAME,), t.SNAKE, "Name of a key=value line in snake_case"),
    ("kv-date-us", s.KV, (f.DATE,), t.TO_US, "Date of a key=value line as MM/DD/YYYY"),
    ("kv-service-upper", s.KV, (f.SERVICE,), t.UPPER, "Service of a key=value line in capitals"),
    ("kv-level-severity", s.KV, (f.LEVEL,), t.SEVERITY_LABEL, "Severity of a key=value line"),
    ("kv-active-bool", s.KV, (f.FLAG,), t.TO_BOOL, "key=value yes/no flag as true or false"),
    ("csv-date", s.CSV, (f.DATE,), t.IDENTITY, "Extract the date from a CSV row with header"),
    ("csv-name-upper", s.CSV, (f.NAME,), t.UPPER, "Name of a CSV row in capitals"),
    ("csv-email-domain", s.CSV, (f.EMAIL,), t.DOMAIN, "Domain of the e-mail in a CSV row"),
    ("csv-amount-de", s.CSV, (f.AMOUNT,), t.DECIMAL_COMMA, "CSV amount with decimal comma"),
    ("csv-date-de", s.CSV, (f.DATE,), t.TO_DE, "Date of a CSV row as DD.MM.YYYY"),
    ("log-service", s.LOG, (f.SERVICE,), t.IDENTITY, "Extract the service from a log line"),
    ("log-level-severity", s.LOG, (f.LEVEL,), t.SEVERITY_LABEL, "Severity of a log line"),
    ("log-date-de", s.LOG, (f.DATE,), t.TO_DE, "Date of a log line as DD.MM.YYYY"),
    ("text-email", s.TEXT, (f.EMAIL,), t.IDENTITY, "Extract the e-mail from a sentence"),
    ("text-email-redact", s.TEXT, (f.EMAIL,), t.REDACT, "Replace the e-mail by <email>"),
    ("text-phone-redact", s.TEXT, (f.PHONE,), t.REDACT, "Replace the phone number by <phone>"),
    ("text-name-redact", s.TEXT, (f.NAME,), t.REDACT, "Shorten the person's name to initials"),
    (
        "text-name-phone-redact",
        s.TEXT,
        (f.NAME, f.PHONE),
        t.REDACT,
        "Shorten the name to initials and replace the phone number by <phone>",
    ),
    ("text-id-redact", s.TEXT, (f.ID,), t.REDACT, "Replace an order number by <id>"),
    ("text-money-code", s.TEXT, (f.MONEY,), t.TO_CODE, "Price of a sentence with currency code"),
    ("mail-name", s.MAIL, (f.NAME,), t.IDENTITY, "Extract the name from a mail header"),
    ("mail-email-domain", s.MAIL, (f.EMAIL,), t.DOMAIN, "Domain of the address in a mail header"),
    ("mail-name-last-first", s.MAIL, (f.NAME,), t.LAST_FIRST, "Mail header name as Last, First"),
    ("url-host", s.URL, (f.HOST,), t.IDENTITY, "Extract the host from a URL"),
    ("url-file-extension", s.URL, (f.FILE,), t.EXTENSION, "File extension of a URL"),
    ("name-initials", s.PLAIN, (f.NAME,), t.INITIALS, "Initials of a name"),
    ("name-first-last", s.PLAIN, (f.NAME_LAST_FIRST,), t.FIRST_LAST, "Last, First as First Last"),
    ("phrase-snake", s.PLAIN, (f.PHRASE,), t.SNAKE, "Words in snake_case"),
    ("phrase-kebab", s.PLAIN, (f.PHRASE,), t.KEBAB, "Words in kebab-case"),
    ("phrase-camel", s.PLAIN, (f.PHRASE,), t.CAMEL, "Words in camelCase"),
    ("phrase-title", s.PLAIN, (f.PHRASE,), t.TITLE, "Words in Title Case"),
    ("phrase-trim", s.PLAIN, (f.PADDED_PHRASE,), t.TRIM, "Strip the blanks around a phrase"),
    ("us-date-iso", s.PLAIN, (f.US_DATE,), t.TO_ISO, "MM/DD/YYYY as YYYY-MM-DD"),
    ("de-date-iso", s.PLAIN, (f.DE_DATE,), t.TO_ISO, "DD.MM.YYYY as YYYY-MM-DD"),
    ("date-long", s.PLAIN, (f.DATE,), t.TO_LONG, "YYYY-MM-DD as 14 Mar 2025"),
    ("de-amount-us", s.PLAIN, (f.DE_AMOUNT,), t.DECIMAL_POINT, "1.234,50 as 1,234.50"),
    ("quantity-base", s.PLAIN, (f.QUANTITY,), t.DROP_KILO, "Kilo units as base units"),
    ("clock-12h", s.PLAIN, (f.CLOCK,), t.TO_12H, "24-hour time as 12-hour time"),
)

_HELD_OUT_ROWS: tuple[Row, ...] = (
    ("json-email-upper", s.JSON, (f.EMAIL,), t.UPPER, "E-mail of a JSON record in capitals"),
    ("json-email-domain", s.JSON, (f.EMAIL,), t.DOMAIN, "Domain of the e-mail in JSON"),
    ("json-name-snake", s.JSON, (f.NAME,), t.SNAKE, "Name of a JSON record in snake_case"),
    ("json-level-severity", s.JSON, (f.LEVEL,), t.SEVERITY_LABEL, "Severity of a JSON record"),
    ("kv-amount-de", s.KV, (f.AMOUNT,), t.DECIMAL_COMMA, "key=value amount with decimal comma"),
    ("kv-date-de", s.KV, (f.DATE,), t.TO_DE, "Date of a key=value line as DD.MM.YYYY"),
    ("csv-city", s.CSV, (f.CITY,), t.IDENTITY, "Extract the city from a CSV row with header"),
    ("csv-date-us", s.CSV, (f.DATE,), t.TO_US, "Date of a CSV row as MM/DD/YYYY"),
    ("csv-name-initials", s.CSV, (f.NAME,), t.INITIALS, "Initials of the name in a CSV row"),
    ("csv-active-bool", s.CSV, (f.FLAG,), t.TO_BOOL, "CSV yes/no flag as true or false"),
    ("log-service-upper", s.LOG, (f.SERVICE,), t.UPPER, "Service of a log line in capitals"),
    (
        "text-email-phone-redact",
        s.TEXT,
        (f.EMAIL, f.PHONE),
        t.REDACT,
        "Replace the e-mail by <email> and the phone number by <phone>",
    ),
)


def _output(segments: list[Segment], targets: tuple[Field, ...], transform: Transform) -> str:
    parts: list[str] = []
    for segment in segments:
        if segment.field is not None and segment.field in targets:
            parts.append(transform.apply(segment.text, segment.field))
        elif transform.in_place:
            parts.append(segment.text)
    return "".join(parts)


def _task(row: Row) -> SuiteTask:
    name, source, targets, transform, description = row
    assert len(targets) == 1 or transform.in_place, "extraction of two fields has no separator"

    def sample(rng: random.Random, lexicon: Lexicon) -> Example:
        while True:
            segments = source.render(rng, lexicon, targets)
            text = "".join(segment.text for segment in segments)
            output = _output(segments, targets, transform)
            fits = len(text.encode()) <= MAX_INPUT_BYTES
            if fits and len(output.encode()) <= MAX_OUTPUT_BYTES:
                return Example(text, output)

    skills = (source.name, *(field.name for field in targets), transform.name)
    return SuiteTask(name, description, skills, transform.labels, sample)


TASKS: dict[str, SuiteTask] = {row[0]: _task(row) for row in (*_SEEN_ROWS, *_HELD_OUT_ROWS)}
SEEN: tuple[str, ...] = tuple(row[0] for row in _SEEN_ROWS)
HELD_OUT: tuple[str, ...] = tuple(row[0] for row in _HELD_OUT_ROWS)
