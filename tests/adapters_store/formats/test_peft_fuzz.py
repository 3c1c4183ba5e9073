"""Whatever a PEFT folder says, the verdict is a verdict in known words, and an import keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from golden_kit import GOLDEN, golden_backbone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft_kit import read_golden
from safetensors.torch import save

from adapters_store.formats import inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.peft.settings import SETTINGS
from adapters_store.formats.reasons import REASONS

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
BACKBONE = golden_backbone("llama").record
CASES = sorted(path.name for path in (GOLDEN / "peft").iterdir() if path.name.startswith("llama-"))
OPTIONS = sorted({name for kind in SETTINGS.values() for name in kind.model_fields})
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["q_proj", ".*", "(a*)*b", "(", "all-linear", "all", "SEQ_CLS", "pissa"]),
        st.text(max_size=8),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


class InMemory:
    """A source of two files."""

    location = "memory"
    revision = None

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def sizes(self) -> Mapping[str, int]:
        return {name: len(data) for name, data in self._files.items()}

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        return self._files[name][begin:end]


def check(config, weights: bytes) -> None:
    files = {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": weights,
    }
    inspection = inspect(InMemory(files), BACKBONE)
    codes = {reason.code for reason in (*inspection.reasons, *inspection.notes)}
    assert codes <= set(REASONS)
    assert (inspection.verdict == "reject") == bool(inspection.reasons)
    json.dumps(inspection.as_json())
    if inspection.verdict == "reject":
        assert inspection.parts == ()
        return
    built = import_from(InMemory(files), BACKBONE)
    assert sum(len(artefact.manifest.parts) for _, artefact in built) == len(inspection.parts)


@FUZZ
@given(st.sampled_from(CASES), st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=3))
def test_any_option_may_hold_anything(case: str, changes):
    config, tensors = read_golden(case)
    check(config | changes, save(tensors))


@FUZZ
@given(st.sampled_from(CASES), st.dictionaries(st.text(max_size=20), VALUES, max_size=3))
def test_any_option_may_be_invented(case: str, changes):
    config, tensors = read_golden(case)
    check(config | changes, save(tensors))


@FUZZ
@given(
    st.sampled_from(CASES),
    st.integers(0, 100),
    st.sampled_from([".lora_A.weight", ".default.weight", ".bias", "", ".weight.weight", "x"]),
    st.lists(st.integers(0, 5), max_size=4),
)
def test_any_tensor_may_be_renamed_and_reshaped(case: str, index: int, ending: str, shape):
    config, tensors = read_golden(case)
    name = sorted(tensors)[index % len(tensors)]
    stem = name.rpartition(".lora_")[0] or name.rpartition(".")[0]
    tensors[stem + ending or "name"] = tensors.pop(name).new_ones(shape)
    check(config, save(tensors))
