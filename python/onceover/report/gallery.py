"""The images of a report, encoded one by one as they are inspected: large pictures for the hardest, small for others.

Nothing here grows with the images but their names and scores: pictures beyond the limits are dropped as harder come.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.errors import InternalError
from onceover.images import outline
from onceover.report.panels import TRUTH_COLOR, HeatScale, Picture, fitted, heat_scale, panels, scaled
from onceover.types import Decision, Image, Verdict

Outcome = Literal["missed", "false-alarm", "found", "passed", "anomalous", "good", "unlabeled"]
# In the order of the page. The first two are mistakes; "anomalous" and "good" are what no threshold has judged.
OUTCOMES: tuple[Outcome, ...] = ("missed", "false-alarm", "found", "anomalous", "passed", "good", "unlabeled")
MISTAKES: tuple[Outcome, ...] = ("missed", "false-alarm")

LARGE, SMALL = 320, 144  # pixels of a picture's longer side
LARGE_COUNT, SMALL_COUNT = 150, 2500  # pictures of each outcome that are kept while images come
LARGE_BYTES, ALL_BYTES = 12_000_000, 22_000_000  # of the page, as base64
_QUALITY = 82  # of JPEG


@dataclass
class Card:
    """One image. label: 0 good, 1 anomalous, -1 unknown. The pictures are JPEG, None where they were dropped."""

    name: str
    label: int
    defect: str
    decision: Decision
    score: float
    p_value: float | None  # None when the package is uncalibrated
    masked: bool  # its defective pixels are known
    nearest: str  # the normal image that comes nearest to its worst patch, "" where the package does not say
    large: tuple[bytes, bytes] | None = None  # the image; the heat map over it, with outlines
    small: bytes | None = None  # the latter

    @property
    def outcome(self) -> Outcome:
        if self.label < 0:
            return "unlabeled"
        if self.decision == "uncalibrated":
            return "anomalous" if self.label else "good"
        if self.label:
            return "missed" if self.decision == "normal" else "found"
        return "passed" if self.decision == "normal" else "false-alarm"

    @property
    def hardness(self) -> float:
        """Among those of its label: an anomalous image is the harder the lower its score, a good one the higher."""
        return -self.score if self.label == 1 else self.score


@dataclass(frozen=True)
class Shown:
    """A card on the page: pictures are data URIs, the image and the map over it, or the latter alone and small."""

    card: Card
    pictures: tuple[str, ...]

    @property
    def is_large(self) -> bool:
        return len(self.pictures) == 2


class Gallery:
    """Takes every image once (`add`), then gives those that a page has room for (`shown`)."""

    def __init__(self, scale: HeatScale | None = None) -> None:
        """scale: of all heat maps; None: from the map threshold, and without one each picture has a scale of its own.

        A package without thresholds whose held-out parts are known can say what is normal by the scale.
        """
        self._scale = scale
        self._cards: list[Card] = []
        self._large, self._small = _Hardest(LARGE_COUNT, "large"), _Hardest(SMALL_COUNT, "small")

    def __len__(self) -> int:
        return len(self._cards)

    def add(
        self, name: str, label: int, defect: str, image: Image, verdict: Verdict, truth: NDArray[np.bool_] | None
    ) -> None:
        """truth: bool (H, W), its defective pixels; None when they are not known."""
        card = Card(
            name=name,
            label=label,
            defect=defect,
            decision=verdict.decision,
            score=verdict.score,
            p_value=None if verdict.decision == "uncalibrated" else verdict.p_value,
            masked=truth is not None and bool(truth.any()),
            nearest="" if verdict.reason is None else verdict.reason.image or "",
        )
        self._cards.append(card)
        if not self._small.enter(card):
            return
        is_large = self._large.enter(card)
        side = LARGE if is_large else SMALL
        drawn = panels(image, verdict, truth, (side, side))
        over = drawn.outlined(self._scale or heat_scale([verdict]))
        if is_large:
            if drawn.truth is not None:  # the page shows it at half its size
                over = outline(over, drawn.truth, TRUTH_COLOR, 2)
            card.large = (_jpeg(drawn.image), _jpeg(over))
        card.small = _jpeg(scaled(over, fitted(over.shape, (SMALL, SMALL))))

    def counts(self) -> dict[Outcome, int]:
        """Images by outcome, in the order of the page, those with none left out."""
        found = [card.outcome for card in self._cards]
        return {outcome: found.count(outcome) for outcome in OUTCOMES if outcome in found}

    def shown(self) -> list[Shown]:
        """Worst misses, worst false alarms, then the rest, the hardest first, as many as the limits allow.

        Half of the large pictures go to what was judged rightly, if there is that much.
        """
        groups = self._groups()
        mistakes = list(_in_turn([groups[outcome] for outcome in MISTAKES]))
        others = list(_in_turn([groups[outcome] for outcome in OUTCOMES if outcome not in MISTAKES]))
        half = max(LARGE_COUNT // 2, LARGE_COUNT - len(others))
        wanted = [*mistakes[:half], *others[: LARGE_COUNT - min(half, len(mistakes))], *mistakes[half:]]
        pictures = _fill({}, wanted[:LARGE_COUNT], LARGE_BYTES, large=True)
        pictures = _fill(pictures, [*mistakes, *others], ALL_BYTES, large=False)
        cards = [card for outcome in OUTCOMES for card in groups[outcome]]
        return [Shown(card, pictures[id(card)]) for card in cards if id(card) in pictures]

    def scores(self) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
        """Scores and labels of all images, (N,) each."""
        scores = np.array([card.score for card in self._cards], np.float32)
        return scores, np.array([card.label for card in self._cards], np.int_)

    def _groups(self) -> dict[Outcome, list[Card]]:
        groups: dict[Outcome, list[Card]] = {outcome: [] for outcome in OUTCOMES}
        for card in sorted(self._cards, key=lambda card: -card.hardness):
            groups[card.outcome].append(card)
        return groups


class _Hardest:
    """The `count` hardest cards of each outcome; one that gives way to a harder loses its pictures `kind`."""

    def __init__(self, count: int, kind: Literal["large", "small"]) -> None:
        self._count, self._kind = count, kind
        self._heaps: dict[Outcome, list[tuple[float, int, Card]]] = {}  # the easiest on top
        self._entered = 0

    def enter(self, card: Card) -> bool:
        """Whether the card is among them; of equals those that came first are."""
        heap = self._heaps.setdefault(card.outcome, [])
        self._entered += 1
        entry = (card.hardness, -self._entered, card)
        if len(heap) < self._count:
            heapq.heappush(heap, entry)
            return True
        easiest = heapq.heappushpop(heap, entry)[2]
        setattr(easiest, self._kind, None)
        return easiest is not card


def _in_turn(groups: list[list[Card]]) -> Iterator[Card]:
    """The first of each group, then the second of each, and so on."""
    for turn in zip_longest(*groups):
        yield from (card for card in turn if card is not None)


def _fill(taken: dict[int, tuple[str, ...]], cards: list[Card], limit: int, large: bool) -> dict[int, tuple[str, ...]]:
    """id of a card → its pictures as data URIs: `taken`, and those of `cards` until all of them reach `limit` bytes."""
    filled = dict(taken)
    room = limit - sum(len(uri) for uris in taken.values() for uri in uris)
    for card in cards:
        kept = card.large if large else () if card.small is None else (card.small,)
        if not kept or id(card) in filled:
            continue
        uris = tuple("data:image/jpeg;base64," + base64.b64encode(picture).decode() for picture in kept)
        room -= sum(map(len, uris))
        if room < 0:
            break
        filled[id(card)] = uris
    return filled


def _jpeg(picture: Picture) -> bytes:
    done, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise InternalError(f"OpenCV cannot encode a picture of shape {picture.shape} as JPEG")
    return bytes(encoded)
