"""The GPU benchmark runs its whole course in small where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_quick_run_measures_every_system_beside_the_bare_step_and_the_floor(
    tmp_path: Path,
) -> None:
    file = tmp_path / "gpu.json"
    assert main(["gpu", "--quick", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    measured = {(row["rows"], row["system"]) for row in report["rows"] if "system" in row}
    systems = ("bare", "lora", "routed", "peft_lora")
    assert measured == {(rows, system) for rows in (1, 4) for system in systems}
    for rows in (1, 4):
        assert report["ratios"][f"bare_over_floor_{rows}"] > 1
        assert report["ratios"][f"lora_over_bare_{rows}"] > 0.5
        assert report["ratios"][f"peft_over_lora_{rows}"] > 0.5
