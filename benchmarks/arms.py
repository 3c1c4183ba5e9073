"""The arms of few-shot comparisons: what each is pretrained as, and how it learns a new task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.inits import Init
from training.recipe import MethodSection
from training.starts import Mode

IA3_RATE = 30.0
"""IA3 multiplies by vectors that start at one: it takes this many times the rate of factors.

By training loss after 100 steps on the suite's seen tasks: 4.2e-1 at 1e-1, against 7.8e-1, 5.3e-1
and 6.0e-1 at 1e-2, 3e-2 and 3e-1.
"""


@dataclass(frozen=True)
class Arm:
    """A name in the tables, the mode that learns a task, and the run it starts from, if any.

    ``init`` is where a routing starts; ``rate`` multiplies the comparison's learning rate.
    """

    name: str
    mode: Mode
    source: str | None
    init: Init = "uniform"
    rate: float = 1.0

    @property
    def folder(self) -> str:
        """The name as a folder."""
        return self.name.lower().replace(" ", "-")


ARMS = (
    Arm("private LoRA", "lora", None),
    Arm("shared LoRA", "lora", "lora"),
    Arm("IA3", "ia3", "ia3", rate=IA3_RATE),
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
    ("MHR-z", "private LoRA"),
    ("MHR-z", "shared LoRA"),
    ("MHR-mu", "MHR"),
    ("MHR-mu", "Poly-mu"),
    ("MHR-mu", "shared LoRA"),
    ("MHR-mu", "random-mu"),
    ("MHR", "random"),
    ("IA3", "shared LoRA"),
)
STARTS: tuple[Init, ...] = ("nearest", "gradient", "embedding", "blend")
START_ARMS = (
    *(Arm(f"MHR-z {init}", "z", "mhr", init) for init in STARTS),
    *(Arm(f"MHR {init}", "full", "mhr", init) for init in STARTS),
)
"""The routed arms of MHR from every other start than the uniform mix."""
START_PAIRS = tuple((arm.name, arm.name.partition(" ")[0]) for arm in START_ARMS)
LIBRARY_ARMS = (Arm("library routing", "z", "library"), Arm("library soup", "soup", "library"))
"""Over a library of the seen tasks' own LoRAs, from their uniform average."""
LIBRARY_PAIRS = (
    ("MHR-z", "library routing"),
    ("MHR-z", "library soup"),
    ("library soup", "library routing"),
)
IA3_SITES = ("self.k", "self.v", "cross.k", "cross.v", "ffn.out")
RATES = {"ia3": IA3_RATE}
"""What multiplies the learning rate of a pretraining run, by the name of the run."""


def pretraining(
    rank: int, num_skills: int, num_heads: int, sites: Sequence[str], *, has_cross: bool
) -> dict[str, MethodSection]:
    """The runs that arms start from, by name: one adapter for all tasks, or a bank.

    ``random`` is a bank whose routing was drawn once per task and never trained.
    """
    ia3 = IA3_SITES if has_cross else tuple(s for s in IA3_SITES if not s.startswith("cross"))
    mhr = MethodSection(
        name="mhr", rank=rank, num_skills=num_skills, num_heads=num_heads, sites=tuple(sites)
    )
    return {
        "lora": MethodSection(name="lora", rank=rank, sites=tuple(sites)),
        "ia3": MethodSection(name="ia3", sites=ia3),
        "poly": mhr.model_copy(update={"name": "poly", "num_heads": 1}),
        "mhr": mhr,
        "random": mhr.model_copy(update={"has_random_routing": True}),
    }


def library(rank: int, sites: Sequence[str]) -> MethodSection:
    """The run that gives a library: a LoRA of its own for every seen task."""
    return MethodSection(name="lora", rank=rank, sites=tuple(sites), is_private=True)
