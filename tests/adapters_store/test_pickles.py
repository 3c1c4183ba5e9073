"""Pickles become safetensors in a confined child process, or nothing is written at all."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters_store.errors import (
    ArtefactTooLargeError,
    ConflictError,
    InvalidArtefactError,
    NotFoundError,
    PatchbayError,
    UnsafeArtefactError,
)
from adapters_store.formats.pickle_child import RefusedError, plain_tensors, write_facts
from adapters_store.formats.pickles import Budget, convert_pickle
from adapters_store.limits import MIB, Limits

FILE = "pytorch_adapter.bin"


class Call:
    """Something whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def folder_with(tmp_path: Path, content: Any = None, *, raw: bytes | None = None) -> Path:
    """An adapter's folder whose weights are ``content`` as torch saves it, or ``raw`` bytes."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"name": "task"}')
    if raw is None:
        torch.save(content, folder / FILE)
    else:
        (folder / FILE).write_bytes(raw)
    return folder


def refusal(
    tmp_path: Path, folder: Path, error: type[PatchbayError], **settings: Any
) -> PatchbayError:
    """The typed error of a conversion that leaves nothing behind."""
    out = tmp_path / "made" / "out"
    out.parent.mkdir()
    with pytest.raises(error) as caught:
        convert_pickle(folder, out, **settings)
    assert list(out.parent.iterdir()) == []
    return caught.value


def test_tensors_and_configuration_arrive_under_the_new_names(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    folder = folder_with(tmp_path, OrderedDict(weights))
    (folder / "more").mkdir()
    torch.save({"c": torch.zeros(1)}, folder / "more" / "adapter_model.pt")
    torch.save({"lr": 0.1}, folder / "training_args.bin")
    (folder / "notes.md").write_text("left behind")
    made = convert_pickle(folder, tmp_path / "out")
    assert made.written == (
        "adapter.safetensors",
        "adapter_config.json",
        "more/adapter_model.safetensors",
    )
    assert made.left_out == ("training_args.bin",)
    found = load_file(made.folder / "adapter.safetensors")
    assert {name: value.dtype for name, value in found.items()} == {
        "a": torch.float32,
        "b": torch.bfloat16,
    }
    assert torch.equal(found["a"], weights["a"])
    assert (made.folder / "adapter_config.json").read_text() == '{"name": "task"}'


def test_views_and_aliases_are_stored_each_on_its_own(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    weights = {"one": matrix, "two": matrix, "row": matrix[1], "turned": matrix.T}
    made = convert_pickle(folder_with(tmp_path, weights), tmp_path / "out")
    found = load_file(made.folder / "adapter.safetensors")
    assert {name: torch.equal(found[name], weights[name]) for name in weights} == dict.fromkeys(
        weights, True
    )


def test_the_pool_of_prefixes_is_stored_once_and_an_impostor_stays(tmp_path: Path) -> None:
    rows = torch.arange(4.0)
    weights = {
        "prefix_tuning.prefix_tunings.t.self_prefix.control_trans": rows,
        "layer.0.prefix_tuning.pool.prefix_tunings.t.self_prefix.control_trans": rows,
        "layer.1.prefix_tuning.pool.prefix_tunings.t.self_prefix.control_trans": rows + 1,
    }
    made = convert_pickle(folder_with(tmp_path, weights), tmp_path / "out")
    found = load_file(made.folder / "adapter.safetensors")
    assert sorted(found) == sorted(name for name in weights if not name.startswith("layer.0"))


def test_the_format_before_zip_archives_is_read_too(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {})
    torch.save({"a": torch.ones(2)}, folder / FILE, _use_new_zipfile_serialization=False)
    made = convert_pickle(folder, tmp_path / "out")
    assert torch.equal(load_file(made.folder / "adapter.safetensors")["a"], torch.ones(2))


def test_weights_that_are_safetensors_already_come_along(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a": torch.ones(2)})
    save_file({"kept": torch.ones(1)}, folder / "adapter.safetensors")
    torch.save({"h": torch.ones(3)}, folder / "pytorch_model_head.bin")
    made = convert_pickle(folder, tmp_path / "out")
    assert made.left_out == (FILE,)
    assert list(load_file(made.folder / "adapter.safetensors")) == ["kept"]
    assert list(load_file(made.folder / "model_head.safetensors")) == ["h"]


@pytest.mark.parametrize(
    ("attack", "is_zip", "error"),
    [
        (lambda canary: Call(os.system, f"touch {canary}"), True, UnsafeArtefactError),
        (lambda canary: Call(os.system, f"touch {canary}"), False, UnsafeArtefactError),
        (lambda _: Call(exec, "while True: pass"), True, UnsafeArtefactError),
        (lambda _: Call(os.fork), False, UnsafeArtefactError),
        (lambda _: Call(bytearray, 2**40), True, ArtefactTooLargeError),
    ],
    ids=["shell in a zip", "shell", "endless loop", "fork", "huge allocation"],
)
def test_code_in_a_pickle_is_never_called(
    tmp_path: Path, attack: Any, is_zip: bool, error: type[PatchbayError]
) -> None:
    canary = tmp_path / "canary"
    weights = {"a": torch.ones(2), "b": attack(canary)}
    folder = folder_with(tmp_path, raw=pickle.dumps(weights))
    if is_zip:
        torch.save(weights, folder / FILE)
    told = refusal(tmp_path, folder, error)
    assert FILE in told.message
    assert "weights_only" not in told.message + told.hint, "nobody is told how to run it"
    assert not canary.exists()


def test_a_tensor_that_is_small_on_disk_and_huge_in_memory_is_refused(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(2**20, 2**20)
    error = refusal(tmp_path, folder_with(tmp_path, {"a": huge}), ArtefactTooLargeError)
    assert "4398046511105 bytes" in error.message


def test_a_storage_that_claims_more_than_it_holds_meets_the_memory_limit(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {})
    torch.save({"a": torch.ones(2)}, folder / FILE, _use_new_zipfile_serialization=False)
    data = (folder / FILE).read_bytes()
    claim = re.search(rb"cpuq.(K\x02)", data, flags=re.DOTALL)
    assert claim is not None
    two_to_the_44 = b"\x8a\x06" + bytes(5) + b"\x10"
    claimed = data[: claim.start(1)] + two_to_the_44 + data[claim.end(1) :]
    (folder / FILE).write_bytes(claimed)
    refusal(tmp_path, folder, ArtefactTooLargeError, budget=Budget(memory_bytes=256 * MIB))


def test_a_zip_bomb_meets_the_memory_limit(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, raw=b"")
    with zipfile.ZipFile(folder / FILE, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + bytes(512 * MIB))
        archive.writestr("archive/version", "3\n")
    assert (folder / FILE).stat().st_size < 4 * MIB
    refusal(tmp_path, folder, InvalidArtefactError, budget=Budget(memory_bytes=128 * MIB))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": torch.ones(2), "rank": 4}, "'rank' is int"),
        ({"a": {"b": torch.ones(2)}}, "'a' is dict"),
        ({3: torch.ones(2)}, "'3' is Tensor"),
        (torch.ones(2), "it holds Tensor"),
        ({}, "it holds dict"),
        ({"a": torch.ones(2).to_sparse()}, "sparse"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "complex64"),
        ({"a": torch.empty(2, device="meta")}, "expected a plain one"),
    ],
    ids=["number", "nested", "unnamed", "bare", "empty", "sparse", "complex", "meta"],
)
def test_anything_but_plain_named_tensors_is_refused(content: Any, words: str) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        plain_tensors(content, {"max_tensors": 10, "max_data_bytes": 1000})
    assert caught.value.kind == "unsafe"


def test_a_checkpoint_of_more_than_an_adapter_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"epoch": 3, "state": {"a": torch.ones(2)}})
    error = refusal(tmp_path, folder, UnsafeArtefactError)
    assert error.message == f"{FILE}: 'epoch' is int; expected a tensor"


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 not an archive"])
def test_files_that_are_no_pickles_of_torch_are_refused(tmp_path: Path, raw: bytes) -> None:
    error = refusal(tmp_path, folder_with(tmp_path, raw=raw), InvalidArtefactError)
    assert error.message.startswith(f"{FILE}: it cannot be read: ")


def test_a_reader_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a": torch.ones(2)})
    error = refusal(tmp_path, folder, UnsafeArtefactError, budget=Budget(wall_s=0.05))
    assert "took more than 0.05 s" in error.message


def test_limits_of_the_store_bound_what_is_read(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a": torch.ones(2000)})
    refusal(tmp_path, folder, ArtefactTooLargeError, limits=Limits(max_data_bytes=1000))


def test_limits_of_the_store_bound_what_is_made() -> None:
    order = {"max_tensors": 8, "max_data_bytes": 20_000}
    views = {"a": torch.ones(2000), "b": torch.ones(1).expand(9000)}
    with pytest.raises(RefusedError, match="its tensors have 44002 bytes; the limit is 20000"):
        plain_tensors(views, order)
    with pytest.raises(RefusedError, match="it holds 9 tensors; the limit is 8"):
        plain_tensors({str(index): torch.ones(1) for index in range(9)}, order)


def test_links_nothing_to_do_and_a_taken_name_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a": torch.ones(2)})
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(ConflictError, match="exists"):
        convert_pickle(folder, taken)
    (folder / "adapter_model.bin").symlink_to("/etc/passwd")
    with pytest.raises(UnsafeArtefactError, match="link"):
        convert_pickle(folder, tmp_path / "out")
    (folder / "adapter_model.bin").unlink()
    torch.save({"a": torch.ones(2)}, folder / "pytorch_adapter.pt")
    with pytest.raises(ConflictError, match="several pickles for one name"):
        convert_pickle(folder, tmp_path / "out")
    with pytest.raises(NotFoundError, match="no pickled weights"):
        convert_pickle(taken, tmp_path / "out")


def test_plain_values_become_json_and_what_json_lacks_a_text_that_names_it(tmp_path: Path) -> None:
    facts = {
        "rank": 2,
        "name": "rte",
        "clip": float("inf"),
        "layers": ("q", 1.5, None, True),
        "of": {3: torch.ones(2), "tags": {"a"}},
    }
    write_facts(facts, str(tmp_path / "facts.json"), {"max_facts_bytes": 1000})
    assert json.loads((tmp_path / "facts.json").read_text()) == {
        "rank": 2,
        "name": "rte",
        "clip": "<inf>",
        "layers": ["q", 1.5, None, True],
        "of": {"3": "<Tensor>", "tags": "<set>"},
    }


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        ([1], "unsafe", "it holds list"),
        ({1: "a"}, "unsafe", "expected named values"),
        ({"a": "x" * 2000}, "too_large", "the limit is 1000"),
    ],
)
def test_facts_that_are_not_named_or_too_long_are_refused(
    facts: Any, kind: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        write_facts(facts, str(tmp_path / "facts.json"), {"max_facts_bytes": 1000})
    assert caught.value.kind == kind
    assert list(tmp_path.iterdir()) == []
