"""What outside checks read of a benchmark: names, JSON fields, exit codes."""

from __future__ import annotations

import json

import pytest

from adapters_store.errors import UsageError
from adapters_store.lazy import resolve
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.report import Report, Target, columns


def test_an_unknown_benchmark_is_a_usage_error_with_a_guess(capsys):
    assert main(["heterogenity"]) == 2
    assert "Did you mean 'heterogeneity'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_resolves(name):
    assert callable(resolve(BENCHMARKS, name, "benchmark"))


def test_a_report_holds_what_the_contract_names(tmp_path):
    report = Report("demo", {"rows": 2}, [{"system": "a", "step_ms": 1.25}], {"a_over_b": 2.0})
    report.write(tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert {"name", "machine", "versions", "config", "rows", "ratios"} <= set(document)
    assert document["ratios"] == {"a_over_b": 2.0}
    assert document["machine"]["num_usable_cores"] >= 1
    assert document["versions"]["torch"]
    assert "a_over_b" in report.table()


def test_columns_are_aligned():
    text = columns([{"name": "long-name", "x": 1.0}, {"name": "b", "x": 22.123456}])
    assert text.splitlines() == ["name       x", "long-name  1", "b          22.12"]


def test_rows_with_other_fields_start_a_table_of_their_own():
    rows = [{"arm": "a", "mean": 1.0}, {"arm": "b", "mean": 2.0}, {"pair": "a - b", "low": 0.5}]
    text = Report("demo", {"rows": 3}, rows).table()
    assert "arm  mean\na    1\nb    2\n\npair   low\na - b  0.5" in text


def test_a_target_is_met_at_its_bound():
    targets = (Target("a", at_most=1.2), Target("b", at_least=0.97), Target("absent", at_most=1))
    report = Report("demo", {}, ratios={"a": 1.2, "b": 0.96}, targets=targets)
    assert [(row["ratio"], row["met"]) for row in report.judged()] == [("a", True), ("b", False)]
    assert ">= 0.97" in report.table()


def test_a_part_replaces_its_own_rows_and_leaves_the_others(tmp_path):
    path = tmp_path / "out.json"
    first = Report("demo", {"rows": 2})
    for part in ("x", "y"):
        with first.timed(part):
            first.rows.append({"part": part, "step_ms": 1.0})
            first.ratios[part] = 1.0
    first.write(path)
    second = Report("demo", {"rows": 2}, [{"part": "y", "step_ms": 2.0}], {"y": 2.0})
    with second.timed("y"):
        pass
    second.add_earlier(path)
    assert second.rows == [{"part": "x", "step_ms": 1.0}, {"part": "y", "step_ms": 2.0}]
    assert second.ratios == {"x": 1.0, "y": 2.0}
    assert set(second.parts) == {"x", "y"}


def test_parts_of_another_configuration_are_not_mixed(tmp_path):
    path = tmp_path / "out.json"
    Report("demo", {"rows": 2}).write(path)
    with pytest.raises(UsageError, match=r"its config is \{'rows': 2\}, here it is \{'rows': 3\}"):
        Report("demo", {"rows": 3}).add_earlier(path)


def test_an_unknown_part_and_a_part_of_what_has_none_are_usage_errors(capsys):
    assert main(["heterogeneity", "--part", "512-fp8-all"]) == 2
    assert "no part 512-fp8-all; known: 512-fp32-all" in capsys.readouterr().err
    assert main(["fairness", "--part", "512-fp32-all"]) == 2
    assert "fairness comes in one part" in capsys.readouterr().err


@pytest.mark.slow
def test_alignment_gives_both_views_of_every_method_and_their_differences(monkeypatch):
    from benchmarks import alignment

    monkeypatch.setattr(alignment, "NUM_TASKS", 3)
    report = alignment.run(quick=True)
    assert [row["step"] for row in report.rows] == [0, 2, 4] * len(alignment.METHODS)
    assert all(-1 <= row[view] <= 1 for row in report.rows for view in alignment.VIEWS)
    assert report.ratios["shared_lora_shared"] == pytest.approx(
        report.ratios["shared_lora_composed"]
    )
    key = "mhr_-_poly_composed"
    assert report.ratios[f"{key}_low"] <= report.ratios[key] <= report.ratios[f"{key}_high"]


TINY = {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 1, "vocab_size": 64}
TINY_DECODER = {
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "vocab_size": 64,
}


@pytest.fixture
def tiny_cells(monkeypatch):
    from benchmarks import cells

    for width in (512, 1024):
        monkeypatch.setitem(cells.T5, width, cells.T5[width] | TINY)
        monkeypatch.setitem(cells.LLAMA, width, cells.LLAMA[width] | TINY_DECODER)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_heterogeneity_gives_the_contract_ratios_and_the_reference_tokens(tiny_cells):
    from benchmarks import heterogeneity

    report = heterogeneity.run(quick=True)
    ratios = report.ratios
    names = {
        "routed_32_over_bare",
        "lora_32_over_bare",
        "mixed_32_over_bare",
        "bare_enabled_over_bare",
        "peft_32_over_routed",
        "peft_poly_32_over_routed",
        "bare_tokens_s_over_generate",
        "bare_tokens_s_over_transformers_cb",
        "decoder_bare_tokens_s_over_generate",
        "decoder_lora_32_over_bare",
        "decoder_routed_32_over_bare",
        "decoder_mixed_32_over_bare",
    }
    assert names <= set(ratios)
    assert all(ratios[name] > 0 for name in names)
    assert ratios["lora_32_same_tokens"] == 1.0
    assert ratios["routed_32_same_tokens_qv"] == 1.0
    assert ratios["bare_answers_same"] == ratios["decoder_bare_answers_same"] == 1.0
    assert set(report.parts) == set(heterogeneity.QUICK)
    judged = {target["ratio"] for target in report.judged()}
    wide = {t.ratio for t in report.targets if t.ratio.endswith(("_bf16", "_1024"))}
    assert judged == {t.ratio for t in report.targets} - wide


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_cell_measures_every_system_and_names_its_ratios_after_itself(tiny_cells):
    from benchmarks import heterogeneity

    few = heterogeneity.run(quick=True, parts=["1024-bf16-all"])
    assert {"routed_32_over_bare_bf16_1024", "lora_32_over_bare_bf16_1024"} == set(few.ratios)
    report = heterogeneity.run(quick=False, parts=["1024-bf16-qv"])
    systems = {row["system"] for row in report.rows if "system" in row}
    counts = {f"{kind}_{n}" for kind in ("lora", "routed") for n in (1, 8, 32, 128)}
    assert counts | {"bare", "mixed_32", "peft_lora_32", "peft_poly_32"} <= systems
    assert "lora_128_over_bare_bf16_1024_qv" in report.ratios
    assert "peft_poly_32_over_routed_bf16_1024" in report.ratios
    assert all(name.endswith(("_bf16_1024_qv", "_bf16_1024")) for name in report.ratios)
    read = {row["system"]: row["read_mb"] for row in report.rows if "read_mb" in row}
    assert read["bare"] < read["lora_1"] < read["lora_8"] < read["lora_32"] < read["lora_128"]


def test_residency_gives_the_contract_ratios():
    from benchmarks import residency

    report = residency.run(quick=True, model=TINY, num_many=300)
    names = {
        "ttft_p95_2x_over_1x",
        "throughput_2x_over_1x",
        "step_10000_over_32",
        "first_token_after_register_over_warm",
    }
    assert names <= set(report.ratios)
    assert all(value > 0 for value in report.ratios.values())
    by_factor = {row["factor"]: row for row in report.rows if "factor" in row}
    assert by_factor[1.0]["from_store"] == 0
    assert by_factor[4.0]["ready"] < by_factor[2.0]["ready"] < by_factor[0.5]["ready"] == 1
    assert by_factor[4.0]["from_store"] > 0
    assert set(report.parts) == {"uniform", "registration", "routings"}
    assert [row["routings"] for row in report.rows if "routings" in row] == [33, 301]


def test_fairness_gives_the_contract_ratio_for_both_policies():
    from benchmarks import fairness

    report = fairness.run(quick=True, model=TINY, duration_s=1.0)
    assert report.ratios["victim_p99_over_alone"] > 0
    assert report.ratios["victim_p99_over_alone_fifo"] > 0
    assert [row["case"] for row in report.rows] == ["alone", "flooded", "flooded"]
    assert len({row["requests"] for row in report.rows[:2]}) == 1


def test_registry_gives_the_contract_ratios_over_both_catalogs(monkeypatch, postgres):
    from benchmarks import registry, services

    monkeypatch.setenv(services.VARIABLE, postgres)
    tiny = {"num_versions": 4_000, "resolves": 200, "pages": 120, "publishes": 20}
    monkeypatch.setattr(registry, "QUICK", tiny)
    report = registry.run(quick=True)
    names = ("resolve_p99_ms", "list_p99_ms", "publish_per_s", "open_ms")
    expected = {f"{catalog}_{name}" for catalog in ("sqlite", "postgres") for name in names}
    assert expected | {"num_versions"} <= set(report.ratios)
    assert report.ratios["num_versions"] == 4_000
    assert all(value > 0 for value in report.ratios.values())
    assert report.config["rows"] == "bulk-loaded"


def test_registry_without_postgresql_says_so_and_reports_sqlite(monkeypatch, capsys):
    from benchmarks import registry, services

    monkeypatch.delenv(services.VARIABLE, raising=False)
    monkeypatch.setattr(services, "_PLACES", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(
        registry, "QUICK", {"num_versions": 4_000, "resolves": 110, "pages": 110, "publishes": 4}
    )
    report = registry.run(quick=True)
    assert "no PostgreSQL figures" in capsys.readouterr().err
    assert report.config["postgres"] == "absent"
    assert {name.partition("_")[0] for name in report.ratios} == {"sqlite", "num"}
