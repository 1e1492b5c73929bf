"""Weights into backbones: names of other layouts, what does not fit, conversion, and the card that travels along."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Capture, answer, refusal

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from onceover import registry  # noqa: E402 - only where torch is installed
from onceover.backbones import create_backbone  # noqa: E402
from onceover.backbones.backbone import Backbone, Normalization, StageInfo  # noqa: E402
from onceover.backbones.checkpoints import WeightsFile  # noqa: E402
from onceover.backbones.mobilenetv2 import MobileNetV2  # noqa: E402
from onceover.backbones.name_map import NameMap  # noqa: E402
from onceover.backbones.weights import CARD_KEY, WeightsCard, convert, load_into, read_card, save_weights  # noqa: E402
from onceover.cli import main  # noqa: E402
from onceover.errors import InputError, OutputError, UnknownNameError, UsageError  # noqa: E402
from onceover.runtime.graph import EMBEDDED  # noqa: E402

torch.set_num_threads(1)
CARD = WeightsCard("tiny", "a test", "CC0-1.0", "none", "")
ARCHITECTURE = Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
OTHER = Normalization((0.5, 0.25, 0.125), (1.0, 2.0, 0.5))


class Tiny(Backbone):
    """A stem at stride 8, `late` at stride 16, and a head; official and timm-like checkpoints name them otherwise."""

    name_maps = (
        NameMap(
            "official",
            (
                (r"stage0\.c\.(.*)", r"stem.0.\1"),
                (r"stage0\.bn\.(.*)", r"stem.1.\1"),
                (r"stage1\.index", None),
                (r"stage1\.(weight|bias)", r"late.\1"),
                (r"fc\.(weight|bias)", r"head.\1"),
            ),
        ),
        NameMap(
            "timm",
            (
                (r"conv_stem\.(.*)", r"stem.0.\1"),
                (r"bn1\.(.*)", r"stem.1.\1"),
                (r"blocks\.0\.(weight|bias)", r"late.\1"),
                (r"classifier\.(weight|bias)", r"head.\1"),
            ),
        ),
    )

    def __init__(self, strides: tuple[int, ...] = (8, 16), classes: int = 0) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8, bias=False), torch.nn.BatchNorm2d(4))
        self.late = torch.nn.Conv2d(4, 6, 2, 2) if 16 in strides else None
        self.head = torch.nn.Linear(6, classes) if classes else None
        self.stages = tuple(StageInfo(f"s{stride}", {8: 4, 16: 6}[stride], stride) for stride in strides)
        self.normalization = ARCHITECTURE

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        taken = [self.stem(x)]
        if self.late is not None:
            taken.append(self.late(taken[-1]))
        return taken[-len(self.stages) :]

    def may_ignore(self, key: str) -> bool:
        room = key.partition(".")[0]
        return (room == "late" and self.late is None) or (room == "head" and self.head is None)


OURS = {"stem.0.": "stem.0.", "stem.1.": "stem.1.", "late.": "late.", "head.": "head."}
OFFICIAL = {"stem.0.": "stage0.c.", "stem.1.": "stage0.bn.", "late.": "stage1.", "head.": "fc."}
TIMM = {"stem.0.": "conv_stem.", "stem.1.": "bn1.", "late.": "blocks.0.", "head.": "classifier."}
LAYOUTS = {"ours": OURS, "official": OFFICIAL, "timm": TIMM}


def filled(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    model = Tiny(classes=5)
    model.stem[1].running_mean.uniform_(-1, 1)
    model.stem[1].running_var.uniform_(0.5, 2)
    return model


def renamed(tensors: dict[str, Any], layout: dict[str, str]) -> dict[str, Any]:
    return {
        layout[old] + key.removeprefix(old): t for key, t in tensors.items() for old in layout if key.startswith(old)
    }


def checkpoint(layout: str = "official", seed: int = 0) -> dict[str, Any]:
    """All tensors of the tiny network, head and counters too, as `layout` names them."""
    return renamed(filled(seed).state_dict(), LAYOUTS[layout])


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def equal(first: Backbone, second: Backbone) -> bool:
    """Whether what both have is the same, counters of training aside."""
    ours, theirs = first.state_dict(), second.state_dict()
    keys = {key for key in ours if key in theirs and not key.endswith("num_batches_tracked")}
    return bool(keys) and all(torch.equal(ours[key], theirs[key]) for key in keys)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which the tiny network is registered for this test."""
    monkeypatch.setitem(registry.BACKBONES, "tiny", f"{__name__}:Tiny")  # type: ignore[attr-defined]
    assert __name__ in sys.modules
    return "tiny"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("made", [{}, {"classes": 5}, {"strides": (8,)}])
def test_every_layout_fills_every_parameter(tmp_path: Path, layout: str, suffix: str, made: dict[str, Any]) -> None:
    path, content = tmp_path / f"w.{suffix}", checkpoint(layout)
    if suffix == "pth":
        saved(path, {"model": content, "epoch": 3})
    else:
        safetensors_torch.save_file(content, str(path))
    model = Tiny(**made)
    assert not equal(model, filled())
    load_into(model, path)
    assert equal(model, filled())
    assert int(model.stem[1].num_batches_tracked) == 0
    assert model.normalization == ARCHITECTURE


def test_averaged_weights_are_loaded_only_when_asked_for(tmp_path: Path, tiny: str) -> None:
    content = {"net": checkpoint(seed=1), "net_E": checkpoint(seed=2), "optimizer": {}}
    path = saved(tmp_path / "w.pth", content)
    assert equal(create_backbone(tiny, path), filled(1))
    assert equal(create_backbone(tiny, WeightsFile(path, ema=True)), filled(2))
    assert "averaged" in read_card(WeightsFile(path, ema=True)).source
    assert "averaged" not in read_card(path).source


def test_a_key_that_a_name_map_drops_may_be_of_any_kind(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {**checkpoint(), "stage1.index": torch.arange(4)})
    model = Tiny()
    load_into(model, path)
    assert equal(model, filled())


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_checkpoint_with_more_than_a_mobilenet_needs_fills_it(tmp_path: Path, batch_norm: bool) -> None:
    padding: Any = "symmetric" if batch_norm else "same"
    whole = MobileNetV2(0.25, padding, batch_norm, strides=(8, 16), classes=7)
    path = saved(tmp_path / "w.pth", {"state_dict": {f"module.{k}": v for k, v in whole.state_dict().items()}})
    cut = MobileNetV2(0.25, padding, batch_norm, strides=(8, 16))
    load_into(cut, path)
    assert equal(cut, whole)
    other = MobileNetV2(0.25, padding, batch_norm, strides=(8, 16), classes=3)
    with pytest.raises(
        InputError, match=r"2 of another shape: .*classifier\.1\.weight expected \(3, 1280\) got \(7, 1280\)"
    ):
        load_into(other, path)


def test_what_does_not_fit_is_counted_listed_and_changes_nothing(tmp_path: Path) -> None:
    content = checkpoint("timm")
    del content["conv_stem.weight"], content["bn1.bias"]
    content |= {"blocks.1.weight": torch.ones(1), "blocks.0.weight": torch.ones(6, 4, 3, 3)}
    model, before = Tiny(), Tiny()
    before.load_state_dict(model.state_dict())
    with pytest.raises(InputError) as caught:
        load_into(model, saved(tmp_path / "w.pth", content))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'w.pth'}: ")
    for part in (
        "2 missing: stem.0.weight, stem.1.bias;",
        "1 unexpected: blocks.1.weight;",
        "1 of another shape: late.weight expected (6, 4, 2, 2) got (6, 4, 3, 3)",
        "read by their timm names",
    ):
        assert part in message
    assert equal(model, before)


def test_keys_of_two_layouts_at_once_do_not_fit(tmp_path: Path) -> None:
    content = {**checkpoint("timm"), **checkpoint("official")}
    with pytest.raises(InputError, match="unexpected"):
        load_into(Tiny(), saved(tmp_path / "w.pth", content))


def test_a_parameter_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    class Twice(Tiny):
        name_maps = (NameMap("double", ((r"(.*)\.copy", r"\1"), (r"(.*)", r"\1"))),)

    content = {**checkpoint("ours"), "late.bias.copy": torch.ones(6)}
    with pytest.raises(InputError, match=r"1 given twice: late\.bias"):
        load_into(Twice(), saved(tmp_path / "w.pth", content))


def test_weights_of_something_else_are_refused_with_shortened_lists(tmp_path: Path) -> None:
    content = {f"encoder.{i}.weight": torch.ones(1) for i in range(40)}
    with pytest.raises(InputError, match=r"40 unexpected: encoder\.0\.weight, .* and 35 more") as caught:
        load_into(Tiny(), saved(tmp_path / "w.pth", content))
    assert "7 missing: stem.0.weight" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_float_types_become_float32(tmp_path: Path, dtype: str) -> None:
    kind = getattr(torch, dtype)
    content = {key: t.to(kind) if t.is_floating_point() else t for key, t in checkpoint().items()}
    model = Tiny()
    load_into(model, saved(tmp_path / "w.pth", content))
    assert {t.dtype for t in model.parameters()} == {torch.float32}
    assert torch.equal(model.stem[0].weight, filled().stem[0].weight.to(kind).to(torch.float32))


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.ones(6, 4, 2, 2, dtype=torch.int32), r"late\.weight \(int32\): weights must be floating-point"),
        (torch.ones(6, 4, 2, 2, dtype=torch.bool), r"late\.weight \(bool\)"),
        (torch.ones(6, 4, 2, 2, dtype=torch.complex64), r"late\.weight \(complex64\)"),
        (torch.ones(6, 4, 2, 2).to_sparse(), r"late\.weight \(torch\.sparse_coo"),
        (torch.ones(6, 4, 2, 2, device="meta"), r"late\.weight \(.*meta"),
        (torch.ones(1).expand(6, 4, 2, 2), r"late\.weight \(shape \(6, 4, 2, 2\), but fewer values in the file"),
        (torch.full((6, 4, 2, 2), torch.nan), r"NaN or infinite values in late\.weight"),
        (torch.full((6, 4, 2, 2), torch.inf, dtype=torch.float16), r"NaN or infinite values in late\.weight"),
        (torch.full((6, 4, 2, 2), 1e300, dtype=torch.float64), r"NaN or infinite values in late\.weight"),
    ],
)
def test_tensors_that_are_no_finite_floats_are_refused_by_name(tmp_path: Path, weight: Any, says: str) -> None:
    path = saved(tmp_path / "w.pth", {**checkpoint("ours"), "late.weight": weight})
    with pytest.raises(InputError, match=says) as caught:
        load_into(Tiny(), path)
    assert str(path) in str(caught.value)


def test_the_card_s_normalization_overrides_that_of_the_architecture(tmp_path: Path, tiny: str) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, checkpoint("ours"), dataclasses.replace(CARD, normalization=OTHER))
    assert read_card(path).normalization == OTHER
    assert create_backbone(tiny, path).normalization == OTHER
    save_weights(path, checkpoint("ours"), CARD)
    assert read_card(path).normalization is None
    assert create_backbone(tiny, path).normalization == ARCHITECTURE


@pytest.mark.parametrize(
    ("normalization", "says"),
    [
        ({"mean": [0.5, 0.5, 0.5]}, "exactly the fields mean and std"),
        (None, "exactly the fields mean and std"),
        ({"mean": [0.5, 0.5], "std": [1, 1, 1]}, "mean must be three numbers"),
        ({"mean": [0.5, 0.5, True], "std": [1, 1, 1]}, "mean must be three numbers"),
        ({"mean": "0.5", "std": [1, 1, 1]}, "mean must be three numbers"),
        ({"mean": [0.5, 0.5, float("nan")], "std": [1, 1, 1]}, "mean must be three numbers"),
        ({"mean": [0.5, 0.5, 0.5], "std": [1, 0, 1]}, "std must be three numbers from 1e-06"),
    ],
)
def test_a_damaged_normalization_is_refused_with_the_name_of_the_file(
    tmp_path: Path, normalization: Any, says: str
) -> None:
    fields = json.dumps({**CARD.to_json(), "normalization": normalization})
    path = tmp_path / "w.safetensors"
    safetensors_torch.save_file(checkpoint("ours"), str(path), metadata={CARD_KEY: fields})
    with pytest.raises(InputError, match=says) as caught:
        load_into(Tiny(), path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000])
def test_a_card_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.safetensors"
    safetensors_torch.save_file(checkpoint("ours"), str(path), metadata={CARD_KEY: text})
    with pytest.raises(InputError, match=r"w\.safetensors: its weights card is not"):
        read_card(path)


def test_a_converted_file_has_our_keys_all_parts_and_a_card_with_its_origin(tmp_path: Path, tiny: str) -> None:
    source = saved(tmp_path / "net.pth", {"model": {k: t.to(torch.float64) for k, t in checkpoint().items()}})
    output = tmp_path / "tiny.safetensors"
    card = convert(source, tiny, output, dataclasses.replace(CARD, normalization=OTHER))
    tensors = safetensors_torch.load_file(str(output))
    assert set(tensors) == {key for key in filled().state_dict() if not key.endswith("num_batches_tracked")}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    for made in (Tiny(), Tiny(classes=5), Tiny(strides=(8,))):
        load_into(made, output)
        assert equal(made, filled())
        assert made.normalization == OTHER
    assert card == read_card(output)
    assert card.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert card.source == f"a test; converted from net.pth, SHA-256 {digest}"


def test_a_conversion_of_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path, tiny: str) -> None:
    source = saved(tmp_path / "net.pth", checkpoint())
    outputs = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for output in outputs:
        convert(source, tiny, output, CARD)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_a_conversion_that_cannot_be_leaves_nothing_behind(tmp_path: Path, tiny: str) -> None:
    source = saved(tmp_path / "net.pth", checkpoint())
    unfit = saved(tmp_path / "unfit.pth", {"a": torch.ones(1)})
    spoiled = saved(tmp_path / "spoiled.pth", {**checkpoint(), "fc.bias": torch.full((5,), torch.nan)})  # not built
    twin = tmp_path / "twin.safetensors"
    twin.symlink_to(source)
    before = sorted(tmp_path.iterdir())
    output = tmp_path / "out.safetensors"
    for error, arguments in (
        (UsageError, (source, tiny, tmp_path / "out.pth")),
        (UsageError, (source, tiny, twin)),
        (UnknownNameError, (source, "tinny", output)),
        (InputError, (unfit, tiny, output)),
        (InputError, (spoiled, tiny, output)),
        (InputError, (tmp_path / "absent.pth", tiny, output)),
        (OutputError, (source, tiny, tmp_path / "absent" / "out.safetensors")),
    ):
        with pytest.raises(error):
            convert(*arguments, CARD)
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_converts_with_everything_it_is_told(tmp_path: Path, tiny: str, capsys: Capture) -> None:
    content = {"model": checkpoint(seed=1), "model_ema": checkpoint(seed=2), "args": argparse.Namespace()}
    source, output = saved(tmp_path / "net.pth", content), tmp_path / "w.safetensors"
    call = ["convert", "weights", tiny, str(source), "-o", str(output), "--ema"]
    status, message = refusal(capsys, *call)
    assert status == 3
    assert "argparse.Namespace" in message
    assert not output.exists()
    told = ["--license", "MIT", "--source", "[a] page", "--training-data", "ImageNet-1k"]
    pixels = ["--mean", "0.5,0.25,0.125", "--std", "1,2,0.5"]
    status, printed = answer(capsys, *call, "--trust-pickle", *told, *pixels)
    assert (status, printed["size_bytes"]) == (0, output.stat().st_size)
    assert printed["card"] == read_card(output).to_json()
    assert printed["card"]["license"] == "MIT"
    assert printed["card"]["training_data"] == "ImageNet-1k"
    assert printed["card"]["source"].startswith("[a] page; converted from net.pth, SHA-256 ")
    assert printed["card"]["normalization"] == {"mean": [0.5, 0.25, 0.125], "std": [1.0, 2.0, 0.5]}
    assert equal(create_backbone(tiny, output), filled(2))
    again = tmp_path / "again.safetensors"  # what is not told anew stays
    assert main(["convert", "weights", tiny, str(output), "-o", str(again), "--license", "CC0-1.0"]) == 0
    assert "SHA-256" in capsys.readouterr().out
    assert read_card(again).license == "CC0-1.0"
    assert read_card(again).training_data == "ImageNet-1k"
    assert read_card(again).normalization == OTHER


def test_an_export_takes_a_checkpoint_and_its_card_goes_into_graph_and_package(
    tmp_path: Path, tiny: str, capsys: Capture
) -> None:
    pytest.importorskip("onnxscript")
    from tiny_data import good_folder

    from onceover.runtime.inspector import Inspector

    content = {"net": checkpoint("timm"), "args": argparse.Namespace()}
    source, weights = saved(tmp_path / "net.pth", content), tmp_path / "w.safetensors"
    sizes = ["--height", "32", "--width", "32"]
    for name, path, expected in (("direct", source, ARCHITECTURE), ("converted", weights, OTHER)):
        if path is weights:
            convert(
                WeightsFile(source, trust_pickle=True), tiny, weights, dataclasses.replace(CARD, normalization=OTHER)
            )
        call = ["export", "backbone", tiny, "--weights", str(path), "-o", str(tmp_path / f"{name}.onnx"), *sizes]
        status, spec = answer(capsys, *call, *(["--trust-pickle"] if path is source else []))
        assert status == 0
        card = spec["weights"]
        assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert card["normalization"] == {"mean": list(expected.mean), "std": list(expected.std)}
        assert spec["preprocessing"]["mean"] == list(expected.mean)
        assert spec["preprocessing"]["std"] == list(expected.std)
    assert card["license"] == "CC0-1.0"
    good_folder(tmp_path / "good", 5)
    package = tmp_path / "p.onceover"
    assert (
        main(["fit", str(tmp_path / "good"), "-o", str(package), "--backbone", str(tmp_path / "converted.onnx")]) == 0
    )
    assert Inspector.open(package).manifest["backbone"]["weights"] == card


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_list_shows_the_whole_card_of_the_embedded_backbone(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    _, listing = answer(capsys, "list", "backbones")
    cards = {row["name"]: row["card"] for row in listing["backbones"] if row["weights"] == "embedded"}
    assert list(cards) == list(EMBEDDED)
    assert all(row["card"] is None for row in listing["backbones"] if row["name"] not in EMBEDDED)
    for card in cards.values():
        assert len(card["sha256"]) == 64
        assert card["normalization"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    card = cards["emo_1m"]
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["list", "backbones"]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= int(columns)
    text = " ".join(told.replace("│", " ").split())
    for words in (
        card["license"],
        card["training_data"],
        f"SHA-256 {card['sha256'][:16]}…",
        "mean 0.485 0.456 0.406, std 0.229",
    ):
        assert words in text
    assert re.sub(r"\b(\w{16})\w{48}\b", r"\1…", card["source"]) in text
    assert card["sha256"] not in text
