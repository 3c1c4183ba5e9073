"""A seeded suite of small text tasks: compositions of a source, a field and a transform."""

from training.suite.catalog import HELD_OUT, SEEN, TASKS
from training.suite.generate import generate
from training.suite.task import Example, SuiteTask

__all__ = ["HELD_OUT", "SEEN", "TASKS", "Example", "SuiteTask", "generate"]
