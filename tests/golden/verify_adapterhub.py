"""Hold exports to ``adapters``: ``python verify_adapterhub.py OUT`` in its environment.

``OUT`` is what ``adapterhub_kit.py OUT`` wrote, and the environment is that of
``make_adapterhub.py``. Every export is loaded by the library, which must then compute what the
golden case expects; the digests of those that it does are written to ``adapterhub_exports.json``,
which tests compare with what is exported today.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from adapterhub_cases import CASES, Case, folder_digest
from adapters import AutoAdapterModel
from safetensors.torch import load_file

GOLDEN = Path(__file__).resolve().parent
TOLERANCE = 1e-5


def verify(case: Case, folder: Path) -> str:
    """The export's digest; raises AssertionError where the library computes something else."""
    model = AutoAdapterModel.from_pretrained(
        f"backbones/{case.backbone}", attn_implementation="eager"
    )
    about: dict[str, list[str]] = {}
    name = model.load_adapter(
        str(folder), use_safetensors=True, set_active=True, loading_info=about
    )
    missing = [key for key in about["missing_keys"] if ".prefix_tuning.pool." not in key]
    assert missing + about["unexpected_keys"] == [], (case.name, about)
    model.set_active_adapters(name)
    model.eval()
    given = load_file(GOLDEN / "adapterhub" / case.name / "expected.safetensors")
    logits, hidden = given.pop("logits", None), given.pop("last_hidden_state", None)
    with torch.no_grad():
        if logits is not None:
            model.active_head = name
            found, expected = model(**given).logits, logits
        else:
            found, expected = model.base_model(**given)["last_hidden_state"], hidden
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    return folder_digest(folder)


if __name__ == "__main__":
    exports = Path(sys.argv[1]).resolve()
    os.chdir(GOLDEN)
    wanted = [case for case in CASES.values() if not case.reject]
    digests = {case.name: verify(case, exports / case.name) for case in wanted}
    text = json.dumps(digests, indent=2, sort_keys=True)
    (GOLDEN / "adapterhub_exports.json").write_text(text + "\n")
    print(f"{len(digests)} exports verified")
