"""Weights files: safetensors and torch.save, their wrappers, damage, and pickles that would do things."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from onceover.backbones.checkpoints import WeightsFile, is_safetensors, listed, read_checkpoint  # noqa: E402
from onceover.errors import InputError  # noqa: E402

torch.set_num_threads(1)


def state_dict(value: float = 1.0, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}stem.weight": torch.full((2, 3), value), f"{prefix}stem.bias": torch.full((2,), value)}


def saved(path: Path, content: Any, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def value_read(path: Path, ema: bool = False, trust_pickle: bool = False) -> float:
    """What `state_dict` was filled with, after a check that it came back whole."""
    tensors = read_checkpoint(WeightsFile(path, ema, trust_pickle))
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {"stem.weight": (2, 3), "stem.bias": (2,)}
    return float(tensors["stem.bias"][0])


class Toucher:
    """Pickled, it is a program that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ""])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"w{suffix}"
    if kind == "safetensors":
        safetensors_torch.save_file(state_dict(2.0), str(path))
    else:
        saved(path, state_dict(2.0), legacy=kind == "legacy")
    assert is_safetensors(path) == (kind == "safetensors")
    assert value_read(path) == 2.0


@pytest.mark.parametrize(
    ("content", "averaged"),
    [
        ({"net": state_dict(1), "net_E": state_dict(2), "optimizer": {"lr": 0.1}, "iter": 3}, 2),
        ({"model": state_dict(1), "model_ema": state_dict(2), "epoch": 299}, 2),
        ({"state_dict": state_dict(1), "state_dict_ema": state_dict(2), "arch": "tiny"}, 2),
        ({"model": state_dict(1), "ema": {"module": state_dict(2), "updates": 7}}, 2),
        ({"model": state_dict(1, "module."), "ema": state_dict(2, "module.")}, 2),
        ({"state_dict": collections.OrderedDict(state_dict(1, "module._orig_mod.")), "loss": 0.5}, None),
        (state_dict(1, "module."), None),
    ],
)
def test_the_weights_are_found_inside_wrappers_and_the_average_only_when_asked_for(
    tmp_path: Path, content: Any, averaged: float | None
) -> None:
    path = saved(tmp_path / "w.pth", content)
    assert value_read(path) == 1
    if averaged is None:
        with pytest.raises(InputError, match="leave out --ema"):
            value_read(path, ema=True)
    else:
        assert value_read(path, ema=True) == averaged


def test_a_prefix_of_some_keys_only_is_a_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {**state_dict(), "module.extra": torch.ones(1)})
    assert "module.extra" in read_checkpoint(WeightsFile(path))


@pytest.mark.parametrize(
    ("content", "ema", "says"),
    [
        ({"net": state_dict(), "model": state_dict()}, False, r"'net' \(2 tensors\).*'net' and 'model' may both be"),
        ({"ema": state_dict(), "model_ema": state_dict()}, True, "'model_ema' and 'ema' may both be meant"),
        ({"model_ema": state_dict(), "epoch": 3}, False, r"'epoch' \(int\); only averaged .* --ema takes these"),
        (
            {"student": state_dict(), "teacher": state_dict()},
            False,
            r"'student' \(2 tensors\), 'teacher' \(2 tensors\)",
        ),
        ({**state_dict(), "epoch": 3}, False, r"'epoch' \(int\); none of net, model, state_dict holds weights"),
        ({"model": {}, "epoch": 3}, False, r"'model' \(dict\), 'epoch' \(int\); none of"),
        ({"model": {3: torch.ones(1)}}, False, "none of"),
        ({}, False, "holds nothing, not a state dict"),
        ([torch.ones(2)], False, "holds a list, not a state dict"),
        (torch.ones(2), False, "holds a Tensor, not a state dict"),
        (None, False, "holds a NoneType"),
        ({str(i): i for i in range(20)}, False, "and 12 more"),
    ],
)
def test_where_no_one_state_dict_is_meant_the_file_s_content_is_listed(
    tmp_path: Path, content: Any, ema: bool, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        value_read(saved(tmp_path / "w.pth", content), ema)
    assert str(caught.value).startswith(f"{tmp_path / 'w.pth'}: ")


def test_an_empty_safetensors_file_is_refused(tmp_path: Path) -> None:
    safetensors_torch.save_file({}, str(tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match="holds nothing"):
        read_checkpoint(WeightsFile(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, legacy: bool) -> None:
    touched = tmp_path / "touched"
    path = saved(tmp_path / "w.pth", {"model": state_dict(), "args": Toucher(touched)}, legacy)
    with pytest.raises(InputError) as caught:
        value_read(path)
    assert not touched.exists()
    for part in (str(path), "posix.mkdir" if os.name == "posix" else "mkdir", "--trust-pickle", "any program"):
        assert part in str(caught.value)
    assert value_read(path, trust_pickle=True) == 1  # the same file does run once it is trusted
    assert touched.is_dir()


def test_a_pickle_under_the_name_of_a_safe_file_never_runs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = tmp_path / "w.safetensors"
    for content in (pickle.dumps({"model": Toucher(touched)}), pickle.dumps(Toucher(touched), protocol=0)):
        path.write_bytes(content)
        for trust in (False, True):
            with pytest.raises(InputError, match="not a readable safetensors file"):
                value_read(path, trust_pickle=trust)
        assert not touched.exists()
    with pytest.raises(InputError, match=r"torch\.save wrote it; rename it to \.pth"):
        value_read(saved(path, state_dict()))


@pytest.mark.parametrize("legacy", [False, True])
def test_the_usual_pickled_arguments_are_named_and_load_when_trusted(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "w.pth", {"model": state_dict(3), "args": argparse.Namespace(lr=0.1)}, legacy)
    with pytest.raises(InputError, match=r"holds pickled objects \(argparse\.Namespace\)"):
        value_read(path)
    assert value_read(path, trust_pickle=True) == 3


def test_a_trusted_pickle_of_a_module_that_is_not_installed_names_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"model": state_dict(), "args": argparse.Namespace()})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"cargparse\nNamespace", b"cargparsf\nNamespace"))  # another module, same length
    with pytest.raises(InputError, match=r"argparsf\.Namespace"):
        value_read(path)
    with pytest.raises(InputError, match="need the module 'argparsf'; install it"):
        value_read(path, trust_pickle=True)


def test_a_trusted_pickle_that_fails_is_an_error_of_ours(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"model": state_dict(), "args": Toucher(tmp_path)})  # the folder exists already
    with pytest.raises(InputError, match=r"cannot be loaded \(FileExistsError"):
        value_read(path, trust_pickle=True)


def test_trust_is_not_used_where_it_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "w.pth", state_dict(4))
    asked: list[bool] = []
    load = torch.load

    def watched(*arguments: Any, weights_only: bool, **settings: Any) -> Any:
        asked.append(weights_only)
        return load(*arguments, weights_only=weights_only, **settings)

    monkeypatch.setattr(torch, "load", watched)
    assert value_read(path, trust_pickle=True) == 4
    assert asked == [True]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused_even_when_trusted(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    for trust in (False, True):
        with pytest.raises(InputError, match="a TorchScript program, not weights"):
            value_read(path, trust_pickle=trust)


@pytest.mark.parametrize("trust_pickle", [False, True])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str, trust_pickle: bool) -> None:
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        safetensors_torch.save_file(state_dict(), str(path))
    else:
        saved(path, {"model": state_dict()}, legacy=kind == "legacy")
    whole = path.read_bytes()
    for end in (*range(0, 40, 3), *range(40, len(whole), max(1, len(whole) // 40)), len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"w\.pth: "):
            value_read(path, trust_pickle=trust_pickle)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_with_changed_bytes_is_refused_or_read_but_nothing_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        safetensors_torch.save_file(state_dict(), str(path))
    else:
        saved(path, {"model": state_dict(), "epoch": 3}, legacy=kind == "legacy")
    whole, generator = path.read_bytes(), random.Random(0)
    refusals: list[str] = []
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(generator.choice((1, 2, 8))):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            read_checkpoint(WeightsFile(path))
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert all(str(path) in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "begins with b'version https://'"),
        (b"<!DOCTYPE html>", "begins with b'<!DOCTYPE html>'"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "neither a safetensors file nor"),
        (b"PK\x03\x04 but no archive", "not a readable file of torch.save"),
        (b"\x80\x02 but no pickle", "not a readable file of torch.save"),
        (pickle.dumps({"a": 1}), "not a readable file of torch.save"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        value_read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth: cannot read the weights file"):
        value_read(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="cannot read the weights file"):
        value_read(tmp_path)


def test_a_list_of_names_is_shortened_and_counted() -> None:
    assert listed("abc") == "a, b, c"
    assert listed("abcdefghijk", limit=3) == "a, b, c and 8 more"
