"""Which files `inspect --watch` takes, when, and what it remembers: by a clock of its own, without an image in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onceover.cli import arrivals as arrivals_module
from onceover.cli.arrivals import TRIES, Arrival, Arrivals
from onceover.errors import InputError, UsageError


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("camera").mkdir()
    return Path("camera")


def write(path: Path, size: int = 10, changed: int = 1000) -> Path:
    """A file of that size, changed so many seconds after 1970."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (changed, changed))
    return path


def names(found: list[Arrival]) -> list[str]:
    return [arrival.name for arrival in found]


def take(arrivals: Arrivals) -> list[str]:
    """Look, and inspect what is ready."""
    found = arrivals.ready()
    for arrival in found:
        arrivals.done(arrival)
    return names(found)


def test_a_file_is_ready_when_it_has_stood_still_and_only_once(folder: Path) -> None:
    clock = Clock()
    arrivals = Arrivals([folder], 1.0, clock)
    write(folder / "a.png", 10)
    assert take(arrivals) == []
    clock.seconds = 0.9
    write(folder / "a.png", 20)  # it grows
    assert take(arrivals) == []
    clock.seconds = 1.8
    assert take(arrivals) == []
    clock.seconds = 1.9
    assert take(arrivals) == ["a.png"]
    clock.seconds = 100.0
    assert take(arrivals) == []


def test_a_rewritten_file_is_another_one_also_with_the_same_size(folder: Path) -> None:
    arrivals = Arrivals([folder], 0.0, Clock())
    write(folder / "a.bmp", 10, changed=1000)
    assert take(arrivals) == ["a.bmp"]
    write(folder / "a.bmp", 10, changed=1001)
    assert take(arrivals) == ["a.bmp"]
    write(folder / "a.bmp", 11, changed=1001)
    assert take(arrivals) == ["a.bmp"]
    assert take(arrivals) == []


@pytest.mark.parametrize("given", [".", "./camera/", "camera/../camera", "/proc/self/cwd/camera"])
def test_a_folder_may_be_spelled_in_any_way(folder: Path, given: str) -> None:
    write(folder / "a.png")
    arrivals = Arrivals([Path(given)], 0.0, Clock())
    (arrival,) = arrivals.ready()
    assert str(arrival.path) == str(Path(given) / ("camera/a.png" if given == "." else "a.png"))
    assert arrivals.try_again(arrival)
    assert len(take(arrivals)) == 1
    assert take(arrivals) == []


def test_files_come_in_the_order_in_which_they_were_written(folder: Path) -> None:
    for name, changed in (("b.png", 3), ("c.png", 1), ("late/a.png", 2), ("a.png", 3)):
        write(folder / name, changed=changed)
    assert take(Arrivals([folder], 0.0, Clock())) == ["c.png", "late/a.png", "a.png", "b.png"]


def test_what_is_no_image_to_inspect_is_left_alone(folder: Path) -> None:
    for name in (".hidden.png", ".trash/a.png", "a.png.tmp", "line.jsonl"):
        write(folder / name)
    os.mkfifo(folder / "pipe.png")  # would be waited for without end
    (folder / "nowhere.png").symlink_to("gone")
    (folder / "again").symlink_to(".")
    write(folder / "A.PNG")
    assert take(Arrivals([folder], 0.0, Clock())) == ["A.PNG"]


def test_what_is_there_at_the_start_can_be_left_out_until_it_changes(folder: Path) -> None:
    write(folder / "old.png")
    arrivals = Arrivals([folder], 0.0, Clock())
    assert arrivals.leave_out_present() == 1
    write(folder / "new.png")
    assert take(arrivals) == ["new.png"]
    write(folder / "old.png", 11)
    assert take(arrivals) == ["old.png"]


def test_a_file_that_cannot_be_read_is_tried_again_at_growing_intervals(folder: Path) -> None:
    clock = Clock()
    arrivals = Arrivals([folder], 1.0, clock)
    write(folder / "torn.png")
    tried = []
    for clock.seconds in range(40):
        for arrival in arrivals.ready():
            tried.append(clock.seconds)
            again = arrivals.try_again(arrival)
            assert again == (len(tried) < TRIES)
    assert tried == [1, 2, 4, 8, 16]
    assert arrivals.waiting == 0
    write(folder / "torn.png", 20)
    take(arrivals)
    clock.seconds += 1
    assert take(arrivals) == ["torn.png"]


def test_a_file_that_never_stands_still_is_told_once(folder: Path) -> None:
    clock = Clock()
    arrivals = Arrivals([folder], 2.0, clock)
    told = []
    for clock.seconds in range(100):  # as a camera that writes latest.jpg each second
        write(folder / "latest.jpg", changed=1000 + int(clock.seconds))
        assert arrivals.ready() == []
        told += [(name, clock.seconds) for name in arrivals.restless]
    assert told == [("latest.jpg", arrivals_module.RESTLESS_S + 1)]


def test_a_file_that_changed_since_the_look_is_not_as_seen(folder: Path) -> None:
    arrivals = Arrivals([folder], 0.0, Clock())
    path = write(folder / "a.png")
    (arrival,) = arrivals.ready()
    assert arrival.is_as_seen()
    write(path, 11)
    assert not arrival.is_as_seen()
    assert all(arrivals.try_again(arrival) for _ in range(2 * TRIES))  # what it was is not what it is
    path.unlink()
    assert not arrival.is_as_seen()
    assert (take(arrivals), arrivals.vanished, arrivals.waiting) == ([], 1, 0)


def test_a_folder_that_is_away_is_told_and_its_files_are_not_new_when_it_is_back(folder: Path) -> None:
    write(folder / "a.png")
    write(Path("other/b.png"))
    arrivals = Arrivals([folder, Path("other")], 0.0, Clock())
    assert take(arrivals) == ["camera/a.png", "other/b.png"]
    folder.rename("away")
    write(Path("other/c.png"))
    assert take(arrivals) == ["other/c.png"]
    assert arrivals.problems == {"camera": "No such file or directory"}
    folder.mkdir()  # as where nothing is mounted
    assert (take(arrivals), arrivals.problems) == ([], {})
    folder.rmdir()
    Path("away").rename(folder)
    assert take(arrivals) == []
    assert (arrivals.problems, arrivals.vanished) == ({}, 0)


def test_a_file_that_waits_in_a_folder_that_is_away_has_not_vanished(folder: Path) -> None:
    clock = Clock()
    arrivals = Arrivals([folder], 1.0, clock)
    write(folder / "a.png")
    assert take(arrivals) == []
    folder.rename("away")
    clock.seconds = 2.0
    assert (take(arrivals), arrivals.vanished, arrivals.waiting) == ([], 0, 1)
    Path("away").rename(folder)
    assert take(arrivals) == ["a.png"]


def test_a_folder_that_cannot_be_listed_is_a_problem_and_one_that_has_just_gone_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "late/a.png")
    listed = os.scandir

    def refuse(error: OSError) -> None:
        def scandir(path: str) -> object:
            if str(path).endswith("late"):
                raise error
            return listed(path)

        monkeypatch.setattr(os, "scandir", scandir)

    arrivals = Arrivals([folder], 0.0, Clock())
    refuse(PermissionError(13, "Permission denied", "camera/late"))
    assert (take(arrivals), arrivals.problems) == ([], {"camera/late": "Permission denied"})
    refuse(FileNotFoundError(2, "No such file or directory", "camera/late"))
    assert (take(arrivals), arrivals.problems) == ([], {})


def test_what_is_remembered_is_bounded_by_what_was_there_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals_module, "FORGET_BEYOND", 10)
    arrivals = Arrivals([folder], 0.0, Clock())
    most = 0
    for i in range(100):  # each is moved away before the next is written
        path = write(folder / f"{i}.png")
        assert take(arrivals) == [f"{i}.png"]
        most = max(most, len(arrivals._known))
        path.unlink()
    assert most <= 2 * 1 + 10 + 1
    assert arrivals.waiting == 0


def test_pictures_keep_the_folders_of_images_and_never_share_a_name(folder: Path) -> None:
    for name in ("late/a.png", "late/a.jpg", "late/a.jpg.png", "early/a.png", "b.PNG"):
        write(folder / name)
    pictures = {str(arrival.picture) for arrival in Arrivals([folder], 0.0, Clock()).ready()}
    assert pictures == {"late/a.png", "late/a.jpg.png", "late/a.jpg.png.png", "early/a.png", "b.PNG"}
    write(Path("second/camera/b.PNG"))
    both = Arrivals([folder, Path("second/camera")], 0.0, Clock()).ready()
    assert len({arrival.picture for arrival in both}) == 6


def test_only_folders_are_watched(folder: Path) -> None:
    with pytest.raises(InputError, match="gone: no such folder"):
        Arrivals([folder, Path("gone")], 0.0, Clock())
    with pytest.raises(UsageError, match=r"a\.png: --watch looks into folders"):
        Arrivals([write(folder / "a.png")], 0.0, Clock())
