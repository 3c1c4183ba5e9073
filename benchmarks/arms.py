"""The arms of few-shot comparisons: what each is pretrained as, and how it learns a new task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.recipe import MethodSection
from training.starts import Mode


@dataclass(frozen=True)
class Arm:
    """A name in the tables, the mode that learns a task, and the run it starts from, if any."""

    name: str
    mode: Mode
    source: str | None

    @property
    def folder(self) -> str:
        """The name as a folder."""
        return self.name.lower().replace(" ", "-")


ARMS = (
    Arm("private LoRA", "lora", None),
    Arm("shared LoRA", "lora", "lora"),
    Arm("IA3", "ia3", "ia3"),
    Arm("Poly-z", "z", "poly"),
    Arm("Poly-mu", "mu", "poly"),
    Arm("Poly", "full", "poly"),
    Arm("MHR-z", "z", "mhr"),
    Arm("MHR-mu", "mu", "mhr"),
    Arm("MHR", "full", "mhr"),
    Arm("random-mu", "mu", "random"),
    Arm("random", "full", "random"),
)
PAIRS = (
    ("MHR", "Poly"),
    ("Poly", "shared LoRA"),
    ("MHR", "shared LoRA"),
    ("MHR", "private LoRA"),
    ("MHR-z", "Poly-z"),
    ("MHR-mu", "MHR"),
    ("MHR-mu", "Poly-mu"),
    ("MHR-mu", "shared LoRA"),
    ("MHR-mu", "random-mu"),
    ("MHR", "random"),
    ("IA3", "shared LoRA"),
)
IA3_SITES = ("self.k", "self.v", "cross.k", "cross.v", "ffn.out")


def pretraining(
    rank: int, num_skills: int, num_heads: int, sites: Sequence[str], *, has_cross: bool
) -> dict[str, MethodSection]:
    """The runs that arms start from, by name: one adapter for all tasks, or a bank.

    ``random`` is a bank whose routing was drawn once per task and never trained.
    """
    ia3 = IA3_SITES if has_cross else tuple(s for s in IA3_SITES if not s.startswith("cross"))
    bank = {"rank": rank, "num_skills": num_skills, "sites": tuple(sites)}
    return {
        "lora": MethodSection(name="lora", rank=rank, sites=tuple(sites)),
        "ia3": MethodSection(name="ia3", sites=ia3),
        "poly": MethodSection(name="poly", **bank),
        "mhr": MethodSection(name="mhr", num_heads=num_heads, **bank),
        "random": MethodSection(name="mhr", num_heads=num_heads, has_random_routing=True, **bank),
    }
