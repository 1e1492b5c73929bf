"""One exported network at several image sizes, without torch: the same answers as one exported at that size."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from backbone_checks import CARD

from onceover.backbones import create_backbone
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.errors import UsageError
from onceover.export.run_graph import run_graph
from onceover.export.to_onnx import INPUT_NAME, OUTPUT_NAME, to_onnx
from onceover.runtime.graph import read_graph_spec, resize
from onceover.runtime.protobuf import Malformed, fields_of, message_of

NAME = "mobilenetv2_w035"


@pytest.fixture(scope="module")
def model() -> PatchEmbedding:
    return PatchEmbedding(create_backbone(NAME, None, random_init_seed=0)).eval()


@pytest.fixture(scope="module")
def graph(model: PatchEmbedding) -> bytes:
    return to_onnx(model, 64, 64, CARD, NAME, resizable=True)


def answer(graph: bytes, height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    return np.asarray(run_graph(graph, {INPUT_NAME: image}, [OUTPUT_NAME])[0])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (16, 16), (160, 112)])
def test_a_resized_graph_answers_as_one_exported_at_that_size(
    model: PatchEmbedding, graph: bytes, height: int, width: int
) -> None:
    resized, spec = resize(graph, read_graph_spec(graph, "graph"), height, width)
    assert read_graph_spec(resized, "resized") == spec
    expected = answer(to_onnx(model, height, width, CARD, NAME), height, width)
    got = answer(resized, height, width)
    assert got.shape == (1, spec.grid_height * spec.grid_width, spec.embedding_dim)
    np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(expected).max())


def test_its_own_size_gives_the_very_same_bytes_and_so_does_the_way_back(graph: bytes) -> None:
    spec = read_graph_spec(graph, "graph")
    assert resize(graph, spec, 64, 64) == (graph, spec)
    assert resize(*resize(graph, spec, 96, 80), 64, 64) == (graph, spec)


@pytest.mark.parametrize(("height", "width"), [(72, 64), (64, 8), (0, 64), (64, 8192), (-16, 64)])
def test_a_size_it_cannot_have_is_refused(graph: bytes, height: int, width: int) -> None:
    with pytest.raises(UsageError, match=r"multiple of 16 up to 4096, got"):
        resize(graph, read_graph_spec(graph, "graph"), height, width)


def test_a_graph_for_one_size_says_how_to_make_another(model: PatchEmbedding) -> None:
    fixed = to_onnx(model, 64, 64, CARD, NAME)
    with pytest.raises(UsageError, match=rf"for images of 64x64.*export backbone {NAME}.*--height 96 --width 96"):
        resize(fixed, read_graph_spec(fixed, "fixed"), 96, 96)


def test_attention_windows_are_laid_out_by_side() -> None:
    model = PatchEmbedding(create_backbone("emo_1m", None, random_init_seed=0, window=8)).eval()
    graph = to_onnx(model, 256, 256, CARD, "emo_1m", resizable=True)
    spec = read_graph_spec(graph, "graph")
    assert spec.sides == (256, 384)
    resized, other = resize(graph, spec, 384, 384)
    expected = answer(to_onnx(model, 384, 384, CARD, "emo_1m"), 384, 384)
    np.testing.assert_allclose(answer(resized, 384, 384), expected, atol=2e-5 * np.abs(expected).max())
    assert resize(resized, other, 256, 256) == (graph, spec)
    for height, width in ((320, 320), (256, 384)):
        with pytest.raises(UsageError, match="must be one of 256, 384, got"):
            resize(graph, spec, height, width)
    with pytest.raises(UsageError, match=r"exported at one of \(256, 384\), square"):
        to_onnx(model, 320, 320, CARD, "emo_1m", resizable=True)


def test_messages_are_written_as_they_were_read(graph: bytes) -> None:
    assert message_of((number, value) for number, value in fields_of(memoryview(graph))) == graph
    fields = [(1, 0), (2, 127), (3, 128), (4, 1 << 63), (17, b"x" * 200), (2000, b"")]
    assert [(n, v if isinstance(v, int) else bytes(v)) for n, v in fields_of(memoryview(message_of(fields)))] == fields


def test_bytes_that_are_no_message_are_refused() -> None:
    for data in (b"\xff" * 12, b"\x0a\x05ab", b"\x0b"):
        with pytest.raises(Malformed):
            list(fields_of(memoryview(data)))
