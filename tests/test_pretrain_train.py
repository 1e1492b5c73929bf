"""Training from records: it learns, repeats itself bit by bit, and survives a kill; processes share a batch."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Capture, answer, cli
from pretrain_samples import recorded

from onceover.backbones import create_backbone
from onceover.backbones.weights import read_card
from onceover.errors import InputError, UsageError
from onceover.training.pretrain import train as training
from onceover.training.pretrain.checkpoint import checkpoint_path
from onceover.training.pretrain.loading import BatchOrder
from onceover.training.pretrain.train import TrainingOptions, TrainingReport, learning_rate, train

STUDENT = "mobilenetv2_w050"
OPTIONS = TrainingOptions(STUDENT, steps=8, batch=4, threads=1, device="cpu", checkpoint_every=3)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("pretrain"))


def trained(records: Path, output: Path, options: TrainingOptions = OPTIONS) -> TrainingReport:
    return train(records, output, options, lambda step, steps, loss: None)


def words_of(records: Path, output: Path, *more: str) -> list[str]:
    words = ["pretrain", "train", str(records), "--student", STUDENT, "-o", str(output), "--device", "cpu"]
    return [*words, "--threads", "1", *more]


def test_each_epoch_sees_every_record_once_in_an_order_of_its_own() -> None:
    batches = list(BatchOrder(range(14), 7, 4, seed=3))
    sequence = [record for batch in batches for record in batch]
    epochs = [sequence[start : start + 7] for start in range(0, 56, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8
    assert list(BatchOrder(range(5, 14), 7, 4, seed=3)) == batches[5:]


def test_processes_share_each_batch_without_overlap() -> None:
    whole = list(BatchOrder(range(6), 50, 8, seed=1))
    parts = [list(BatchOrder(range(6), 50, 8, 1, process, 4)) for process in range(4)]
    for step, batch in enumerate(whole):
        assert sorted(record for part in parts for record in part[step]) == sorted(batch)


def test_the_learning_rate_rises_and_falls() -> None:
    options = replace(OPTIONS, steps=100, warmup=0.1)
    rates = [learning_rate(options, step) for step in range(100)]
    assert rates.index(max(rates)) in {9, 10}
    assert max(rates) == options.learning_rate
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_student_learns_features_and_classes_and_its_file_is_a_backbone(records: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=60, batch=8, half=True, about="drawn for a test")
    report = trained(records, tmp_path / "s.safetensors", options)
    assert np.mean(report.losses[-5:]) < 0.6 * np.mean(report.losses[:3])
    backbone = create_backbone(STUDENT, tmp_path / "s.safetensors")
    assert backbone(torch.zeros(1, 3, 32, 32))[0].isfinite().all()
    card = read_card(tmp_path / "s.safetensors")
    assert card.license == "CC0-1.0"
    assert card.training_data == "views of 3 images (drawn for a test) and 2 drawn ones, no labels"
    assert not checkpoint_path(tmp_path / "s.safetensors").exists()


def test_the_same_options_give_the_same_bits_with_0_and_2_loader_workers(records: Path, tmp_path: Path) -> None:
    reports = [trained(records, tmp_path / f"{n}.safetensors", replace(OPTIONS, workers=n)) for n in (0, 2)]
    assert reports[0].losses == reports[1].losses
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    other = trained(records, tmp_path / "other.safetensors", replace(OPTIONS, seed=1))
    assert other.losses != reports[0].losses


def test_training_leaves_the_settings_of_torch_as_they_were(records: Path, tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    trained(records, tmp_path / "s.safetensors", replace(OPTIONS, steps=1))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_training_killed_at_random_moments_ends_with_the_same_bits(records: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=40, checkpoint_every=2)
    whole = trained(records, tmp_path / "whole.safetensors", options)
    output = tmp_path / "killed.safetensors"
    words = words_of(records, output, "--steps", "40", "--batch", "4", "--checkpoint-every", "2", "--resume")
    delays = random.Random(0)
    kills = 0
    for _ in range(2):
        process = cli(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen = checkpoint_path(output).stat().st_mtime_ns if checkpoint_path(output).exists() else 0
        while process.poll() is None:  # until it has written a checkpoint of its own
            if checkpoint_path(output).exists() and checkpoint_path(output).stat().st_mtime_ns != seen:
                break
            time.sleep(0.01)
        time.sleep(delays.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    report = trained(records, output, replace(options, resume=True))
    assert report.resumed_at > 0 or kills == 1
    assert report.losses == whole.losses
    assert output.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


class Interrupted(Exception):
    """What a kill does to the training."""


def interrupted(records: Path, output: Path) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(records, output, OPTIONS, stop)


def test_a_checkpoint_is_only_continued_by_the_same_training(records: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.safetensors"
    interrupted(records, output)
    with pytest.raises(UsageError, match="go on with --resume, or delete it"):
        trained(records, output)
    with pytest.raises(UsageError, match=r"learning_rate was 0\.002, is 0\.001"):
        trained(records, output, replace(OPTIONS, resume=True, learning_rate=1e-3))
    report = trained(records, output, replace(OPTIONS, resume=True, workers=1))
    assert (report.resumed_at, len(report.losses)) == (3, 8)


def test_a_damaged_checkpoint_is_refused(records: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.safetensors"
    interrupted(records, output)
    path = checkpoint_path(output)
    for data in (path.read_bytes()[:1000], b"", b"text"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="cannot read the checkpoint"):
            trained(records, output, replace(OPTIONS, resume=True))


def test_records_of_other_pixels_are_refused_unless_accepted(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**training.pipeline_fingerprint(), "views": "0" * 64}
    monkeypatch.setattr(training, "pipeline_fingerprint", lambda: other)
    with pytest.raises(UsageError, match=r"views differ.*--accept-other-pixels"):
        trained(records, tmp_path / "s.safetensors")
    trained(records, tmp_path / "s.safetensors", replace(OPTIONS, steps=1, accept_other_pixels=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_changed_is_named_by_the_training(workers: int, tmp_path: Path) -> None:
    folder = recorded(tmp_path)
    (tmp_path / "images" / "0.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    with pytest.raises(InputError, match=r"0\.png: the image has changed since it was recorded .*") as caught:
        trained(folder, tmp_path / "s.safetensors", replace(OPTIONS, workers=workers))
    assert "Traceback" not in str(caught.value)


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 4 cannot be shared by 3"):
        OPTIONS.check(processes=3)


def test_two_processes_have_the_losses_of_one(records: Path, tmp_path: Path, capsys: Capture) -> None:
    more = ("--steps", "6", "--batch", "8", "--freeze-norms")
    status, alone = answer(capsys, *words_of(records, tmp_path / "one.safetensors", *more))
    assert status == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "onceover.cli", *words_of(records, tmp_path / "two.safetensors", *more), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    together = json.loads(done.stdout)  # one process answers
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=1e-5)
    assert len(set(alone["losses"])) == 6
