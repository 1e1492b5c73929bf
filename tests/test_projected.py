"""A distilled student: a backbone with a 1x1 convolution behind every stage, known by the keys of its weights file."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
import backbone_checks as checks
import torch
from backbone_checks import CARD

from onceover.backbones import create_backbone
from onceover.backbones.folding import folded
from onceover.backbones.projected import Projected
from onceover.backbones.weights import save_weights
from onceover.errors import InputError

NAME = "mobilenetv4_conv_small"


def student(strides: tuple[int, ...] = (8, 16)) -> Projected:
    trunk = create_backbone(NAME, None, strides, random_init_seed=0)
    torch.manual_seed(0)  # the same projections every time
    return checks.randomized(Projected(trunk, [5, 7][: len(strides)])).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("projected") / "student.safetensors"
    save_weights(path, student().state_dict(), CARD)
    return path


def test_the_weights_bring_the_projections_and_their_channels(weights: Path) -> None:
    model, image = create_backbone(NAME, weights), torch.randn(1, 3, 64, 48)
    assert [(stage.stride, stage.channels) for stage in model.stages] == [(8, 5), (16, 7)]
    expected = student()(image)
    for got, wanted in zip(model(image), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    assert [tuple(stage.shape) for stage in expected] == [(1, 5, 8, 6), (1, 7, 4, 3)]


def test_a_stage_alone_takes_its_own_projection(weights: Path) -> None:
    model, image = create_backbone(NAME, weights, strides=(16,)), torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(model(image)[0], student()(image)[1])


def test_folding_leaves_the_projections_alone() -> None:
    model = student()
    assert checks.folding_error(model) < 1e-10
    assert torch.equal(folded(model).projections["8"].weight, model.projections["8"].weight)


def test_a_missing_projection_is_named(tmp_path: Path) -> None:
    tensors = student().state_dict()
    del tensors["projections.16.weight"]
    save_weights(tmp_path / "w.safetensors", tensors, CARD)
    with pytest.raises(InputError, match=r"missing: projections\.16\.weight"):
        create_backbone(NAME, tmp_path / "w.safetensors")


def test_weights_of_another_trunk_are_refused(weights: Path) -> None:
    with pytest.raises(InputError, match="name the backbone they were made for"):
        create_backbone("mobilenetv2_w050", weights)


def test_a_trunk_without_projections_stays_as_it_is(tmp_path: Path) -> None:
    trunk = create_backbone(NAME, None, random_init_seed=0)
    save_weights(tmp_path / "w.safetensors", trunk.state_dict(), CARD)
    assert type(create_backbone(NAME, tmp_path / "w.safetensors")) is type(trunk)
