"""The reference over every family: each named place takes effect, and nothing stays behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from families_kit import build, golden_config, model_inputs

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.families import MODEL_TYPES, family_of
from adapters_store.manifest import TaskSignature
from adapters_store.primitives import PRIMITIVES, BackboneShapes, Part
from adapters_store.primitives.bottleneck import BottleneckPart, Reads
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.mixture import BankPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from adapters_store.primitives.routing import RoutingPart
from adapters_store.primitives.scale import ScalePart
from training.reference import REFERENCES, applied

PAGE = Path(__file__).parents[2] / "docs" / "registry" / "primitives.md"
SAMPLES: tuple[Part, ...] = (
    LowRankPart(site="encoder.0.self.q", rank=1, scale=1.0),
    BankPart(site="encoder.0.self.q", rank=1, num_skills=2, num_heads=1, scale=1.0),
    RoutingPart(sites=("encoder.0.self.q",), num_skills=2, num_heads=1),
    ScalePart(site="encoder.0.self.q", side="input"),
    ScalePart(site="encoder.0.self.q", side="output"),
    BottleneckPart(
        block="encoder.0.after_ffn",
        rank=1,
        activation="relu",
        reads="sum",
        scale=1.0,
        norm_eps=1e-5,
    ),
    PrefixPart(attention="encoder.0.self", num_tokens=1, shifts_positions=True),
    PromptPart(input="encoder", num_tokens=1, has_positions=True),
    OverridePart(vector="encoder.0.self.norm.gain", operation="add"),
    HeadPart(num_labels=2, pooling="cls", dense_size=3),
)
"""A part of every primitive and option that owns tensors."""


@dataclass(frozen=True)
class Case:
    """A bare model with its backbone's tables and what it gives for fixed inputs."""

    backbone: Backbone
    model: Any
    bare: torch.Tensor

    def run(self) -> torch.Tensor:
        with torch.no_grad():
            hidden: torch.Tensor = self.model(**model_inputs(self.model)).last_hidden_state
        return hidden

    def artefact(self, *parts: Part) -> Artefact:
        specs = [spec for part in parts for spec in part.tensor_specs(self.backbone.shapes)]
        generator = torch.Generator().manual_seed(len(specs))
        return build_artefact(
            kind="adapter",
            backbone=self.backbone,
            parts=parts,
            tensors={spec.name: torch.randn(spec.shape, generator=generator) for spec in specs},
            signature=TaskSignature(task="embedding"),
        )


@pytest.fixture(scope="module", params=list(MODEL_TYPES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder: Path = tmp_path_factory.mktemp("family") / str(request.param).replace("_", "-")
    model = build(golden_config(request.param))
    model.set_attn_implementation("eager")
    model.save_pretrained(folder)
    found = Case(Backbone.from_folder(folder), model, torch.empty(0))
    return Case(found.backbone, model, found.run())


def has_text(backbone: Backbone) -> bool:
    """False for images and sounds, whose positions are part of their embedding."""
    return "vocab_size" in backbone.config


def parts_of(backbone: Backbone, primitive: str) -> Iterator[Part]:
    """One part for every place of the backbone where the primitive acts."""
    anatomy, sites = backbone.shapes.anatomy, backbone.shapes.sites.values()
    match primitive:
        case "low_rank":
            yield from (LowRankPart(site=site.name, rank=2, scale=0.5) for site in sites)
        case "scale":
            for site in sites:
                yield ScalePart(site=site.name, side="input")
                yield ScalePart(site=site.name, side="output")
        case "bottleneck":
            for block in anatomy.blocks:
                for reads in get_args(Reads):
                    yield BottleneckPart(
                        block=block.name, rank=2, activation="tanh", reads=reads, scale=1.0
                    )
        case "prefix":
            for one in anatomy.attentions:
                for shifts in (False, True) if has_text(backbone) else (False,):
                    yield PrefixPart(attention=one.name, num_tokens=2, shifts_positions=shifts)
        case "prompt":
            for stack in anatomy.inputs:
                for has in (False, True) if has_text(backbone) else (False,):
                    yield PromptPart(input=stack.name, num_tokens=2, has_positions=has)
        case "override":
            for vector in anatomy.vectors:
                # A softmax does not see what is added to every key alike.
                if not vector.name.endswith(".k.bias"):
                    yield OverridePart(vector=vector.name, operation="add")


def test_primitives_and_references_are_the_same_rows_in_the_same_order() -> None:
    assert list(REFERENCES) == list(PRIMITIVES)


def test_every_primitive_has_a_section_in_the_docs_that_names_its_tensors() -> None:
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    by_title = {text.split("\n", 1)[0]: text for text in sections}
    assert [title for title in by_title if title in PRIMITIVES] == list(PRIMITIVES)
    config = golden_config("bert")
    shapes = BackboneShapes(
        {site.name: site for site in family_of(config).sites(config)},
        family_of(config).anatomy(config),
    )
    for part in SAMPLES:
        for spec in part.tensor_specs(shapes):
            leaf = spec.name.rsplit("/", 1)[1].replace("0", "{layer}")
            assert re.search(rf"[/`]{re.escape(leaf)}`", by_title[part.primitive]), spec.name
    assert {part.primitive for part in SAMPLES} == set(PRIMITIVES)


@pytest.mark.parametrize(
    "primitive", ["low_rank", "scale", "bottleneck", "prefix", "prompt", "override"]
)
def test_every_place_takes_effect_and_nothing_stays(case: Case, primitive: str) -> None:
    before = footprint(case.model)
    num_places = 0
    for part in parts_of(case.backbone, primitive):
        with applied(case.model, case.backbone, case.artefact(part)):
            found = case.run()
        num_rows = found.shape[1] - case.bare.shape[1]
        assert not torch.equal(found[:, num_rows:], case.bare), part
        num_places += 1
    assert num_places
    assert footprint(case.model) == before
    assert torch.equal(case.run(), case.bare)


def footprint(model: Any) -> list[tuple[Any, ...]]:
    """What an applied artefact could leave behind: parameters, hooks and settings, by module."""
    found: list[tuple[Any, ...]] = []
    for path, module in model.named_modules():
        parameters = [
            (name, id(value), None if value is None else value.detach().numpy().tobytes())
            for name, value in module._parameters.items()
        ]
        hooks = (len(module._forward_hooks), len(module._forward_pre_hooks))
        config = getattr(module, "config", None)
        found.append((path, parameters, hooks, getattr(config, "_attn_implementation", None)))
        found.append((path, sorted(module.__dict__), sorted(module._modules)))
    return found


def test_nested_artefacts_add_up_and_are_undone_in_turn(case: Case) -> None:
    sites = list(case.backbone.sites)
    block, vector = case.backbone.shapes.anatomy.blocks[0], sites[0]
    outer = case.artefact(LowRankPart(site=vector, rank=2, scale=1.0))
    inner = case.artefact(
        BottleneckPart(block=block.name, rank=2, activation="relu", reads="sum", scale=1.0),
        ScalePart(site=sites[1], side="input"),
    )
    before = footprint(case.model)
    with applied(case.model, case.backbone, outer):
        alone = case.run()
        with applied(case.model, case.backbone, inner):
            both = case.run()
        assert torch.equal(case.run(), alone)
    with applied(case.model, case.backbone, inner):
        other = case.run()
    outputs = [case.bare, alone, other, both]
    assert all(not torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[i + 1 :])
    assert footprint(case.model) == before


def interrupt(case: Case) -> None:
    case.run()
    raise KeyError("stop")


def test_an_exception_inside_the_block_undoes_everything(case: Case) -> None:
    anatomy, shifts = case.backbone.shapes.anatomy, has_text(case.backbone)
    artefact = case.artefact(
        LowRankPart(site=next(iter(case.backbone.sites)), rank=1, scale=1.0),
        PrefixPart(attention=anatomy.attentions[0].name, num_tokens=1, shifts_positions=shifts),
        PromptPart(input=anatomy.inputs[0].name, num_tokens=2, has_positions=False),
        OverridePart(vector=anatomy.vectors[0].name, operation="replace"),
    )
    before = footprint(case.model)
    with pytest.raises(KeyError, match="stop"), applied(case.model, case.backbone, artefact):
        interrupt(case)
    assert footprint(case.model) == before
    assert torch.equal(case.run(), case.bare)
