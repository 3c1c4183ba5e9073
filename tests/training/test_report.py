"""The page of a run: its numbers against values worked out by hand, its text complete and alone."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from training_kit import SUITE_NAMES, tiny_recipe

from adapters_store.errors import NotFoundError
from training import log
from training.recipe import TasksSection
from training.report.page import write_report
from training.report.pictures import bars, lines
from training.report.routing import MAX_ROUTERS, MAX_TASKS, sections
from training.report.statistics import average_linkage, leaf_order, router_statistics
from training.run import Run
from training.sources import load_tasks


def test_undecided_gates_have_full_entropy_and_decided_ones_none() -> None:
    undecided = router_statistics(np.full((2, 3, 1, 4), 0.5))
    assert undecided.discreteness == pytest.approx(1.0)
    assert (undecided.sparsity, undecided.usage) == (0.0, pytest.approx(1.0))
    decided = np.zeros((2, 3, 1, 4))
    decided[..., 0] = 1.0
    found = router_statistics(decided)
    assert found.discreteness == pytest.approx(0.0, abs=1e-9)
    assert found.sparsity == pytest.approx(0.25)
    assert found.usage == pytest.approx(0.0, abs=1e-9)


def test_alike_tasks_merge_first_and_stand_side_by_side() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.05], [0.02, 1.0]])
    merges = average_linkage(vectors)
    assert [{m.left, m.right} for m in merges] == [{1, 3}, {0, 2}, {4, 5}]
    assert merges[0].height == pytest.approx(1 - 1 / np.hypot(0.02, 1.0), abs=1e-9)
    assert [merge.size for merge in merges] == [2, 2, 4]
    order = leaf_order(merges, 4)
    assert sorted(order) == [0, 1, 2, 3]
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1


def test_clusters_are_those_of_mean_distances_between_their_members() -> None:
    vectors = np.random.default_rng(0).normal(size=(24, 5))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    members: list[list[int]] = [[index] for index in range(24)]
    alive = set(range(24))
    for merge in average_linkage(vectors):
        heights = {
            (a, b): (1 - unit[members[a]] @ unit[members[b]].T).mean()
            for a in alive
            for b in alive
            if a < b
        }
        assert {merge.left, merge.right} == set(min(heights, key=lambda pair: heights[pair]))
        assert merge.height == pytest.approx(min(heights.values()), abs=1e-9)
        alive = (alive - {merge.left, merge.right}) | {len(members)}
        members.append(members[merge.left] + members[merge.right])


def test_one_task_is_a_tree_of_its_own() -> None:
    assert average_linkage(np.ones((1, 3))) == []
    assert leaf_order([], 1) == [0]


def test_names_cannot_break_a_picture() -> None:
    drawn = lines({'<script>"&': [(0, 1.0), (1, 2.0)]}, "a < b")
    assert ElementTree.fromstring(drawn).tag == "svg"
    assert "<script" not in drawn


@pytest.mark.parametrize("method", ["mhr", "lora"])
def test_the_page_shows_the_run_and_refers_to_nothing_outside(method, tmp_path: Path) -> None:
    run = Run.build(tiny_recipe(method, eval_every=2))
    run.train(tmp_path)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "step</th><td>4 of 4" in text
    assert all(name in text for name in SUITE_NAMES)
    assert not re.search(r"(src|href)=|https?://|@import|url\(", text)
    pictures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]
    titles = [picture.get("aria-label") for picture in pictures]
    assert "Training loss by step" in titles
    assert "Mean score on dev by step" in titles
    assert ("Tasks by the distance of their routing" in titles) == (method == "mhr")
    assert ("discreteness" in text) == (method == "mhr")
    assert ("Share of each skill in all routing" in titles) == (method == "mhr")
    assert {f"{name} on dev by step" for name in SUITE_NAMES} <= set(titles)
    assert "Shown:" not in text


def test_a_page_needs_neither_the_data_nor_a_folder_that_is_there(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"task": "mine", "input": "a", "output": "b"}\n')
    tasks = TasksSection(source="jsonl", path=str(rows))
    Run.build(tiny_recipe(steps=1).model_copy(update={"tasks": tasks})).train(tmp_path / "run")
    rows.unlink()
    page = write_report(tmp_path / "run", tmp_path / "new" / "page.html").read_text()
    assert "mine, 0: 0." in page


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"recipe\.json is missing"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_softmax_routing_is_shown_by_its_own_weights() -> None:
    logits = np.log(np.array([[[[0.7, 0.2, 0.1]]]]))
    text = "".join(part for _, part in sections(["one"], ["encoder.q"], logits, "softmax"))
    assert "one, 0: 0.700" in text
    assert "encoder.q, 2: 0.100" in text
    assert "Shown:" not in text


def test_what_is_left_out_of_a_picture_is_said_and_numbers_are_over_all() -> None:
    number = MAX_TASKS + 3
    logits = np.full((number, MAX_ROUTERS + 1, 1, 2), -20.0)
    logits[:MAX_TASKS, :, :, 0] = 20.0
    logits[MAX_TASKS:, :, :, 1] = 20.0
    names = [f"t{index}" for index in range(number)]
    routers = [f"r{index}" for index in range(MAX_ROUTERS + 1)]
    parts = dict(sections(names, routers, logits, "sigmoid"))
    said = f"Shown: {MAX_TASKS} of {number} tasks"
    assert said in parts["Routing"]
    assert said in parts["Which tasks route alike"]
    assert f"Shown: {MAX_ROUTERS} of {MAX_ROUTERS + 1} routers" in parts["Use of skills by router"]
    assert ">t199<" in parts["Routing"]
    assert ">t200<" not in parts["Routing"]
    shares = re.findall(r">(0\.\d{3})</text>", parts["Routing"])
    assert shares[:2] == [f"{MAX_TASKS / number:.3f}", f"{3 / number:.3f}"]


def test_bars_are_as_long_as_their_values() -> None:
    drawn = ElementTree.fromstring(bars(np.array([0.5, 0.25]), ["a", "b"], "two"))
    lengths = [float(bar.get("width", 0)) for bar in drawn if bar.tag == "rect"]
    assert lengths[0] == 2 * lengths[1] > 0


def test_a_run_of_one_task_and_one_skill_without_log_has_a_page(tmp_path: Path) -> None:
    recipe = tiny_recipe("poly", steps=1)
    method = recipe.method.model_copy(update={"num_skills": 1})
    recipe = recipe.model_copy(update={"method": method})
    run = Run.build(recipe, load_tasks(recipe.tasks)[:1])
    run.train(tmp_path)
    (tmp_path / "log.jsonl").unlink()
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Learning" not in text
    assert f"{run.tasks[0].name}, 0: 1.000" in text


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    Run.build(tiny_recipe(steps=2, eval_every=1)).train(tmp_path)
    whole = write_report(tmp_path).read_text(encoding="utf-8")
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    assert write_report(tmp_path).read_text(encoding="utf-8") == whole
    assert [record["step"] for record in log.records(tmp_path)] == [1, 2]
