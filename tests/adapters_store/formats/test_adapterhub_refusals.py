"""What an AdapterHub import refuses: each defect by its code, in words that name it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from adapterhub_cases import CASES
from golden_kit import golden_backbone
from hub_kit import about, changed, head_option, option, read, renamed, tensor, verdict

from adapters_store.errors import InvalidArtefactError, RejectedArtefactError
from adapters_store.formats import inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.reasons import REASONS
from adapters_store.formats.source import FolderSource

UP, DOWN = "adapter_up.weight", "adapter_down.0.weight"


def member(**values):
    return lambda saved: saved.config["configs"][1].update(values)


def without_option(name):
    return lambda saved: saved.config.pop(name)


def file(name, data=b"{}"):
    return lambda saved: saved.files.update({name: data})


def head(**values):
    return lambda saved: saved.head.update(values)


def without_head_document(saved):
    saved.head = None


def pickled_head(saved):
    saved.head_tensors = {}
    saved.files["pytorch_model_head.bin"] = b"\x80\x02}q\x00."


def of(case, change, code, words):
    return pytest.param(case, change, code, words, id=f"{case}: {words}")


REFUSED = [
    # options
    of("bert-seq_bn", option(use_gating=True), "unsupported_option", "use_gating is True"),
    of("bert-seq_bn", option(ln_after=True), "unsupported_option", "ln_after is True"),
    of("bert-seq_bn", option(inv_adapter="glow"), "unsupported_option", "inv_adapter is 'glow'"),
    of("bert-seq_bn", option(scaling="rowwise"), "unsupported_option", "scaling is 'rowwise'"),
    of("bert-seq_bn", option(scaling=None), "unreadable", "scaling is None; expected"),
    of("bert-seq_bn", option(non_linearity="mish"), "unsupported_option", "'mish'; known:"),
    of("bert-seq_bn", option(new_norm=True), "unknown_option", "new_norm is True"),
    of("bert-seq_bn", option(mh_adapter="yes"), "unreadable", "mh_adapter is 'yes'; expected bool"),
    of("bert-seq_bn", without_option("output_adapter"), "unreadable", "output_adapter is missing"),
    of("bert-seq_bn", option(reduction_factor=16), "rank_mismatch", "rank 4; .* over 16 is 2"),
    of("bert-seq_bn", option(reduction_factor=0), "unreadable", "0 for layer 0; expected"),
    of("bert-seq_bn", option(reduction_factor={"0": 8}), "unreadable", "None for layer 1"),
    of("bert-seq_bn", option(residual_before_ln="post"), "unsupported_option", "is not known"),
    of("bert-seq_bn", option(residual_before_ln="post_add"), "unsupported_option", "twice"),
    of("llama-seq_bn", option(residual_before_ln="post_add"), "unsupported_option", "fails on it"),
    of("llama-seq_bn", option(residual_before_ln=False), "unsupported_option", "x is counted"),
    of("llama-seq_bn", option(original_ln_after=False), "unsupported_option", "is left out"),
    of("bert-par_bn", option(original_ln_after=False), "unsupported_option", "is left out"),
    of("bert-compacter", option(phm_dim=3), "unreadable", "phm_dim 3 does not divide 32"),
    of("bert-compacter", option(phm_rank=2), "shape_mismatch", r"expected \[4, 8, 2\]"),
    of("bert-compacter", option(shared_W_phm=True), "missing_tensor", "W_down_left"),
    of("bert-lora", option(use_dora=True), "unsupported_option", "use_dora is True: DoRA"),
    of("bert-lora", option(vera_d=0.1), "unsupported_option", "vera_d is 0.1: VeRA"),
    of("bert-lora", option(r=3), "rank_mismatch", "has 2 rows; r 3 gives 3"),
    of("bert-lora", option(r=0), "unreadable", "r is 0; expected 1"),
    of("bert-lora", option(composition_mode="swap"), "unsupported_option", "composition_mode is"),
    of("bert-ia3", option(r=2), "unreadable", "beside composition_mode 'scale'"),
    of("bert-prompt_tuning", option(combine="prefix_after_bos"), "unsupported_option", "combine"),
    of("bert-prompt_tuning", option(prompt_length=4), "shape_mismatch", r"expected \[4, 32\]"),
    of("bert-prompt_tuning", option(prompt_length=0), "unreadable", "prompt_length is 0"),
    # methods
    of("bert-seq_bn", option(architecture="reft"), "unsupported_method", "architecture is 'reft'"),
    of("bert-seq_bn", option(architecture=["lora"]), "unsupported_method", "known: "),
    of("bert-lora", option(architecture="mtl_lora"), "unsupported_method", "'mtl_lora'"),
    of("llama-union", member(architecture="union"), "unsupported_method", "is 'union'; known"),
    of("llama-union", member(use_gating=True), "unsupported_option", "use_gating is True"),
    of("bert-seq_bn", file("adapter_fusion_config.json"), "unsupported_method", "fusion"),
    of("bert-seq_bn", file("adapter_setup.json"), "unsupported_method", "composes several"),
    of("bert-seq_bn", file("adapter_interface.json"), "unsupported_method", "hooks"),
    of("bert-seq_bn", file("embedding.pt"), "unsupported_method", "embedding of its own"),
    # the document
    of("bert-seq_bn", about(config="pfeiffer"), "unreadable", "config .* is 'pfeiffer'"),
    of("bert-seq_bn", about(name=None), "unreadable", "name .* is None"),
    of("bert-seq_bn", about(name="a.b"), "unreadable", "name .* is 'a.b'"),
    of("bert-seq_bn", about(name="other"), "missing_tensor", "adapters.other.adapter_down"),
    of("bert-seq_bn", about(version=2), "unreadable", "version .* is 2"),
    of("bert-seq_bn", about(model_type="distilbert"), "incompatible", "made for a 'distilbert'"),
    of("bert-seq_bn", about(hidden_size=768), "incompatible", "of width 768"),
    of("bert-seq_bn", option(leave_out=[0, 1]), "extra_tensor", "explained|explains"),
    # tensors
    of("bert-seq_bn", tensor(UP, None), "missing_tensor", r"layer.0.output.*adapter_up.weight"),
    of("bert-seq_bn", tensor("stray.weight", torch.ones(2)), "extra_tensor", "stray.weight"),
    of("bert-seq_bn", tensor(UP, torch.ones(4, 32)), "shape_mismatch", r"\[4, 32\], expected"),
    of("bert-seq_bn", tensor(DOWN, torch.ones(0, 32)), "rank_mismatch", "has rank 0"),
    of("bert-seq_bn", tensor(UP, torch.ones(32, 4).double()), "dtype", "adapter_up.weight is F64"),
    of("bert-seq_bn", tensor(UP, torch.ones(32, 4).long()), "dtype", "adapter_up.weight is I64"),
    of("bert-seq_bn", renamed("bert.", "model."), "missing_tensor", "layer.0.output"),
    of("bert-compacter", tensor("phm_rule", None), "missing_tensor", "shared_parameters.task"),
    of("bert-lora", tensor("lora_B", None), "missing_tensor", "lora_B"),
    of("gpt2-lora", tensor("lora_A", torch.ones(6, 32)), "rank_mismatch", "6 rows; r 2 gives 4"),
    # heads
    of("bert-head", head_option(head_type="tagging"), "unsupported_option", "'tagging'"),
    of("bert-head", head_option(layers=3), "unsupported_option", "layers is 3"),
    of("bert-head", head_option(activation_function="relu"), "unsupported_option", "'relu'"),
    of("bert-head", head_option(num_labels=1), "unsupported_option", "one label is a regression"),
    of("bert-head", head_option(num_labels=4), "shape_mismatch", r"expected \[4, 32\]"),
    of("bert-head", head_option(label2id={"a": 0, "b": 2}), "unreadable", "3 labels from 0 on"),
    of("bert-head", head_option(label2id={"": 0, "b": 1, "c": 2}), "unreadable", "at least 1"),
    of("bert-head", head_option(label2id={"a" * 201: 0, "b": 1, "c": 2}), "unreadable", "at most"),
    of("bert-head", head_option(label2id=dict(zip("abcd", range(4)))), "unreadable", "3 labels"),
    of("vit-head", head_option(multilabel=True), "unsupported_option", "exclude each other"),
    of("bert-static_head", head(model_class="BertForTokenClassification"), "unsupported_option",
       "head of 'BertForTokenClassification'"),
    of("bert-head", without_head_document, "unreadable", "a head without head_config.json"),
    of("bert-head", pickled_head, "unsafe", "pytorch_model_head.bin is a pickle"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "change", "code", "words"), REFUSED)
def test_a_defect_is_refused_by_its_name(tmp_path: Path, case, change, code, words) -> None:
    source = changed(tmp_path, case, change)
    found = verdict(source, case)
    assert found.verdict == "reject"
    assert found.parts == ()
    assert code in {reason.code for reason in found.reasons}
    assert {reason.code for reason in found.reasons} <= set(REASONS)
    assert any(
        re.search(words, reason.message) for reason in found.reasons if reason.code == code
    ), found.reasons
    with pytest.raises(RejectedArtefactError):
        import_from(source, golden_backbone(CASES[case].backbone).record)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    source = changed(
        tmp_path,
        "llama-union",
        lambda saved: saved.config["configs"][0].update(ln_after=True, use_gating=True),
        member(use_dora=True, novel="x"),
    )
    assert sorted((one.code, one.where) for one in verdict(source, "llama-union").reasons) == [
        ("unknown_option", "config.configs.1.novel"),
        ("unsupported_option", "config.configs.0.ln_after"),
        ("unsupported_option", "config.configs.0.use_gating"),
        ("unsupported_option", "config.configs.1.use_dora"),
    ]


def test_two_members_that_claim_one_place_are_refused(tmp_path: Path) -> None:
    def twice(saved) -> None:
        saved.document["config"] = {"architecture": "union", "configs": [saved.config] * 2}

    found = verdict(changed(tmp_path, "bert-seq_bn", twice), "bert-seq_bn")
    assert "claimed by two methods" in found.reasons[0].message


def test_two_tensors_for_one_place_are_refused(tmp_path: Path) -> None:
    def doubled(saved) -> None:
        saved.tensors |= {
            name.removeprefix("bert."): value.clone() for name, value in saved.tensors.items()
        }

    [reason] = verdict(changed(tmp_path, "bert-seq_bn", doubled), "bert-seq_bn").reasons
    assert "are for one place" in reason.message


def test_many_missing_tensors_make_one_reason(tmp_path: Path) -> None:
    source = changed(tmp_path, "t5-seq_bn", renamed(".adapters.", ".adaptors."))
    found = verdict(source, "t5-seq_bn")
    assert [reason.code for reason in found.reasons] == ["missing_tensor", "extra_tensor"]
    assert "and 19 more" in found.reasons[0].message


def test_a_configuration_that_leaves_every_layer_out_has_no_effect(tmp_path: Path) -> None:
    def emptied(saved) -> None:
        saved.config["leave_out"] = [0, 1]
        saved.tensors = {}

    [reason] = verdict(changed(tmp_path, "bert-seq_bn", emptied), "bert-seq_bn").reasons
    assert reason.code == "no_effect"


def test_a_flood_of_findings_is_counted(tmp_path: Path) -> None:
    flood = {f"option_{index}": "x" * 10_000 for index in range(500)}
    found = verdict(changed(tmp_path, "bert-seq_bn", option(**flood)), "bert-seq_bn")
    assert len(found.reasons) == 41
    assert found.reasons[-1].message == "and 460 more reasons"
    assert max(len(reason.message) for reason in found.reasons) < 200


def test_a_union_of_too_many_members_is_refused(tmp_path: Path) -> None:
    def many(saved) -> None:
        saved.config["configs"] *= 9

    [reason] = verdict(changed(tmp_path, "llama-union", many), "llama-union").reasons
    assert "has 18 members; 16 are allowed" in reason.message


def test_values_that_are_not_finite_are_refused_when_they_are_read(tmp_path: Path) -> None:
    source = changed(tmp_path, "bert-seq_bn", tensor(UP, torch.full((32, 4), float("nan"))))
    with pytest.raises(InvalidArtefactError, match="NaN"):
        import_from(source, golden_backbone("bert").record)


def test_copies_of_one_norm_that_differ_are_refused_when_they_are_read(tmp_path: Path) -> None:
    def normed(saved) -> None:
        saved.config["ln_before"] = True
        found = {}
        for name, value in saved.tensors.items():
            found[name.replace("adapter_down.0", "adapter_down.1")] = value
        for layer in (0, 1):
            stem = f"bert.encoder.layer.{layer}.output.adapters.task"
            for norm, gain in (("adapter_norm_before", 1.0), ("adapter_down.0", 2.0)):
                found[f"{stem}.{norm}.weight"] = torch.full((32,), gain)
                found[f"{stem}.{norm}.bias"] = torch.zeros(32)
        saved.tensors = found

    source = changed(tmp_path, "bert-seq_bn", normed)
    assert verdict(source, "bert-seq_bn").verdict == "convert"
    with pytest.raises(InvalidArtefactError, match="one norm, and differ"):
        import_from(source, golden_backbone("bert").record)


def test_a_backbone_without_such_modules_is_refused(tmp_path: Path) -> None:
    source = changed(tmp_path, "bert-seq_bn", about(model_type="qwen2"))
    [reason] = inspect(source, golden_backbone("qwen2").record).reasons
    assert "model_type 'qwen2' is not one of" in reason.message


def test_compositions_are_recognised_and_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_setup.json").write_text("{}")
    found = inspect(FolderSource(tmp_path), golden_backbone("bert").record)
    assert (found.format, found.reasons[0].code) == ("adapterhub", "unsupported_method")


def test_a_sound_case_changed_in_nothing_converts(tmp_path: Path) -> None:
    for number, case in enumerate(("bert-head", "gpt2-lora", "llama-union")):
        source = FolderSource(read(case).write(tmp_path / str(number)))
        assert verdict(source, case).verdict == "convert"
