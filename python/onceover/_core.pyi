"""The compiled core (csrc/bindings). Arrays are numpy; everything heavy releases the GIL.

An image argument is uint8 or uint16, (H, W) gray, (H, W, 3) or (H, W, 4); pixels of a row must be contiguous, rows
may be strided. `color` is "rgb" or "bgr" (with a fourth channel: RGBA or BGRA, alpha ignored). A float array must be
C-contiguous and aligned. A path is what os.fsencode takes. An object serves one thread at a time: a second one gets
UsageError; only a Package, and a MemoryBank that is only searched, may be shared.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _typeshed import StrOrBytesPath
from numpy.typing import NDArray

__version__: str

# kernels
def isa() -> str: ...  # the active instruction set
def available_isas() -> list[str]: ...  # best first

# image
def resize(image: NDArray[Any], height: int, width: int, color: str = "rgb") -> NDArray[np.uint8]:
    """The one resize: (H, W[, C]) 8-bit → (height, width, 3) uint8 RGB."""

def prepare(
    image: NDArray[Any],
    height: int,
    width: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "rgb",
) -> NDArray[np.float32]:
    """Image → (3, height, width) float32 network input."""

def draw_anomaly_map(patch_scores: NDArray[np.float32], height: int, width: int, sigma: float) -> NDArray[np.float32]:
    """(h, w) → (height, width): bilinear, then Gaussian blur."""

def resize_map(
    anomaly_map: NDArray[np.float32], height: int, width: int, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(h, w) → (height, width), bilinear; into out (C-contiguous, apart from anomaly_map), if given, and returned."""

def find_regions(
    anomaly_map: NDArray[np.float32], threshold: float
) -> list[tuple[tuple[int, int, int, int], int, tuple[int, int], float, tuple[float, float], NDArray[np.int32]]]:
    """Per 8-connected region above the threshold: box, area, peak, peak_value, centroid, contour (types.Region).

    Largest peak first."""

# scoring
class MemoryBank:
    """Rows (M, D) and their search index; rows (and a viewed index) are kept alive and not copied before a change.

    Many threads may search one bank at once; a change refuses to run beside anything else.
    """
    def __init__(
        self,
        rows: NDArray[np.float32],
        *,
        samples: NDArray[np.float32] | None = None,
        seed: int = 0,
        representation: str | None = None,  # "scan", "rank" or "full"; None: chosen by a trial
        rank1: int = 0,  # of a forced "rank"
        rank2: int = 0,
        screened: int = 32,  # of the rank1 coordinates; 0: all
        memory_limit_bytes: int = 0,  # 0: none
        progress: Callable[[int, int], None] | None = None,  # (done, total)
        isa: str | None = None,
    ) -> None: ...
    @staticmethod
    def view(rows: NDArray[np.float32], index: NDArray[np.uint8], isa: str | None = None) -> MemoryBank:
        """index: what index_bytes gave, at an address that is a multiple of 64."""

    def search(
        self, queries: NDArray[np.float32], k: int = 1, threads: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...  # (Q, k), (Q, k); +inf and −1 where there is no neighbor
    def add(self, rows: NDArray[np.float32]) -> int: ...  # the number of the first one
    def remove(self, rows: list[int]) -> None: ...
    def compact(self) -> None: ...
    def index_bytes(self) -> bytes: ...  # a copy
    def rows(self) -> NDArray[np.float32]: ...  # (M, D) a copy, removed rows included
    @property
    def alive(self) -> NDArray[np.bool_]: ...  # (M,)
    @property
    def stats(self) -> dict[str, Any]: ...  # of the last search: isa, and counts
    @property
    def dims(self) -> int: ...
    @property
    def row_count(self) -> int: ...  # without removed rows
    @property
    def representation(self) -> str: ...
    @property
    def ranks(self) -> tuple[int, int, int]: ...  # coordinates screened, of the first bound, of both bounds
    @property
    def index_size_bytes(self) -> int: ...

class GreedyCoreset:
    def __init__(self, points: NDArray[np.float32], first: int, isa: str | None = None) -> None: ...
    def select(self, count: int) -> None: ...
    @property
    def selected(self) -> NDArray[np.int64]: ...
    @property
    def covering_radius(self) -> float: ...

class StreamingCoreset:
    """k-center selection over rows that pass by once; csrc/scoring/streaming_coreset.h. ids: any number of each row."""
    def __init__(
        self, seeds: NDArray[np.float32], ids: NDArray[np.int64], radius: float, count: int, isa: str | None = None
    ) -> None: ...
    def add(self, rows: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.int64]: ...  # which were taken
    def selected(self) -> NDArray[np.int64]: ...  # ids, rising, at most `count`
    def held(self) -> NDArray[np.int64]: ...  # ids of all that may still be selected, rising
    @property
    def covering_radius(self) -> float: ...  # no row that passed is farther from the selection

# metrics
class SegmentationState:
    """Scores of a test set, counted without loss; csrc/metrics. A failed update changes nothing.

    group: number of the kind of defect, 0 to 65535; `groups` is the highest so far plus 1.
    """
    def __init__(self, connectivity: int = 8, page_budget_bytes: int = 0) -> None: ...  # 0: no budget
    # (H, W) float32, float16, uint8 or uint16 scores; (H, W) uint8 or bool mask, None: good. Returns the regions.
    def update(self, anomaly_map: NDArray[Any], mask: NDArray[Any] | None, group: int = 0) -> int: ...
    def update_channels(
        self, anomaly_map: NDArray[Any], channels: list[NDArray[Any]], saturation_areas: list[int], group: int = 0
    ) -> int: ...
    def merge(self, other: SegmentationState, groups: list[int] = []) -> None:
        """other's group i becomes groups[i] here; without `groups` it stays i."""

    def compute(self, fpr_limits: list[float], group: int = -1) -> dict[str, Any]:
        """aupro, auspro (lists), pixel_auroc, average_precision, f1_max, f1_max_threshold, regions, channels,
        anomalous_pixels, normal_pixels; lower, upper (None, or dicts of the same metrics). group −1: all defects."""

    def curve(self, group: int = -1) -> dict[str, NDArray[Any]]:
        """thresholds float32, descending; fpr, pro, spro, tpr, precision float64; all (V,)"""

    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: bytes) -> SegmentationState: ...
    @property
    def connectivity(self) -> int: ...
    @property
    def images(self) -> int: ...
    @property
    def regions(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def normal_pixels(self) -> int: ...
    @property
    def anomalous_pixels(self) -> int: ...
    @property
    def state_bytes(self) -> int: ...
    @property
    def dropped_key_bits(self) -> int: ...  # > 0: the page budget coarsened the counters

def connected_components(
    mask: NDArray[Any], connectivity: int = 8
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]: ...  # areas (R,), boxes (R, 4), runs (n, 4)

# package
# monitor
def measure_image(image: NDArray[Any], color: str = "rgb") -> tuple[float, float]:
    """Brightness (mean luma, 0 … 1) and sharpness, from at most 128 × 128 places."""

def monitored_package(package: Package) -> tuple[int, int]:
    """Calibration parts, and how many ranks among them an accepted score can have; 0, 0 when uncalibrated."""

class Monitor:
    def __init__(
        self,
        *,
        package_id: str,  # 64 hex digits, or ""
        calibration_parts: int,
        accepted_cells: int,
        run_length: float,
        batch: int,
        reject_rate: float,  # 0: learned
    ) -> None: ...
    def update(
        self,
        decision: str,
        score: float,
        p_value: float,
        brightness: float | None = None,
        sharpness: float | None = None,
    ) -> list[str]: ...  # charts whose alarm begins
    def states(self) -> dict[str, tuple[int, int, float, float, float]]: ...  # parts, alarm part, value, limits
    def restart(self, keep_baseline: bool) -> None: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: bytes) -> Monitor: ...
    @property
    def alarms(self) -> list[str]: ...
    @property
    def parts(self) -> int: ...
    @property
    def package_id(self) -> str: ...
    @property
    def run_length(self) -> float: ...

class Package:
    @staticmethod
    def open(path: StrOrBytesPath, verify_hashes: str = "all", copy: bool = False) -> Package:
        """verify_hashes: "all", or "small" for members up to 64 KiB only. copy: into memory instead of mapping."""

    @staticmethod
    def view(data: bytes, label: str = "package") -> Package: ...  # keeps `data` alive
    @property
    def label(self) -> str: ...
    @property
    def id(self) -> str: ...  # 64 hex digits
    @property
    def verified_hashes(self) -> str: ...  # "all" or "small": what it was opened with
    @property
    def version(self) -> tuple[int, int]: ...
    @property
    def members(self) -> list[dict[str, Any]]: ...  # name, type, dimensions, size_bytes, required, sha256 (hex)
    def read(self, name: str) -> bytes: ...
    def array(self, name: str) -> NDArray[Any]: ...  # read-only view into the file, shaped

class PackageWriter:
    def __init__(self) -> None: ...
    # data is kept alive, not copied
    def add(self, name: str, data: bytes | NDArray[Any], required: bool = True) -> None: ...
    def bytes(self) -> bytes: ...
    def save(self, path: StrOrBytesPath) -> None: ...

def save_atomically(path: StrOrBytesPath, data: bytes) -> None: ...

class Config:
    def __init__(
        self,
        *,
        height: int,
        width: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        grid_height: int,
        grid_width: int,
        embedding_dim: int,
        blur_sigma: float,
        tiling: tuple[int, int, int, int] = (1, 1, 0, 0),  # as types.Tiling.fields
    ) -> None: ...
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    grid_height: int
    grid_width: int
    embedding_dim: int
    blur_sigma: float
    @property
    def tiling(self) -> tuple[int, int, int, int]: ...
    @property
    def cells(self) -> tuple[int, int]: ...  # patch grid of the image: (grid_height, grid_width) for one tile
    @property
    def map_size(self) -> tuple[int, int]: ...  # of the anomaly map: (height, width) for one tile
    @property
    def feature_count(self) -> int: ...  # patches of all tiles
    def features_inside(self, roi: NDArray[np.uint8]) -> NDArray[np.int64]: ...  # (n,): those whose cells overlap it
    def cells_of(self, features: NDArray[np.int64]) -> NDArray[np.int64]: ...  # where they lie in the patch grid, (n,)
    def to_bytes(self) -> bytes: ...

def calibration_bytes(
    *,
    calibrated: bool,
    false_alarm_rate: float,
    threshold: float,
    map_threshold: float,
    scores: NDArray[np.float32],
    map_maxima: NDArray[np.float32],
    image_count: int,
    cross_conformal: bool = False,
    confidence: float = 0.0,  # 0: none
) -> bytes: ...

class ParityItem:
    """One reference image with what the session that wrote the package answered."""
    def __init__(
        self,
        image: NDArray[Any],
        color: str,
        score: float,
        verdict: int,
        patch_scores: NDArray[np.float32],
        anomaly_map: NDArray[np.float32],
    ) -> None: ...  # anomaly_map at config.map_size; the record keeps every map_step-th row and column

def parity_bytes(items: list[ParityItem], config: Config, relative_tolerance: float, map_step: int) -> bytes: ...

# records: the fixed members, read without an engine; PackageError for a value without a meaning
def read_config(package: Package) -> Config: ...
def read_calibration(package: Package) -> dict[str, Any]: ...  # as Session.calibration, without n
def read_parity(package: Package) -> dict[str, Any]:
    """relative_tolerance, map_step, images: each image, color, score, verdict, patch_scores (h, w), map (sampled)."""

# measuring: a subject inspects one image; runs are (n, 8) uint64 ns: start, wall, CPU, wait, prepare, engine, score,
# map; summaries are JSON (csrc/measuring/summary.h)
def measure_in_turn(
    subjects: Sequence[Callable[[], RunResult]], seconds: float, turn: int = 1, max_runs: int = 1_000_000
) -> list[tuple[NDArray[np.uint64], str]]: ...
def measure_after_idle(
    subject: Callable[[], RunResult], idle_seconds: float, count: int
) -> tuple[NDArray[np.uint64], str]: ...
def measure_at_rate(
    subject: Callable[[], RunResult], rate_hz: float, seconds: float, max_queue: int = 1000
) -> tuple[NDArray[np.uint64], str]: ...
def describe_machine() -> str: ...
def describe_memory() -> str: ...

# products
def read_products(package: Package) -> list[str]: ...  # names; [""] where there is one product
def products_bytes(names: list[str]) -> bytes: ...
def gate_bytes(
    *,
    mean: NDArray[np.float32],  # (D,)
    weights: NDArray[np.float32],  # (r,)
    axes: NDArray[np.float32],  # (r, D)
    isotropic: float,
    threshold: float,
    part_count: int,
) -> bytes: ...

# session
class EngineOptions:
    """What runs a graph, on what; `onceover.EngineOptions` finds the library."""
    def __init__(
        self,
        name: str,
        library_path: StrOrBytesPath,
        threads: int = 1,
        device: str = "",  # empty: the CPU
        options: Sequence[tuple[str, str]] = (),  # of the device
        cache_dir: StrOrBytesPath | None = None,
    ) -> None: ...

def describe_engine(name: str, library_path: StrOrBytesPath) -> tuple[str, list[str]]:
    """Load the library and ask it: version ("onnxruntime 1.31.1") and the devices it offers here."""

class Embedder:
    def __init__(self, config: Config, graph: bytes, engine: EngineOptions) -> None: ...
    def embed(self, image: NDArray[Any], color: str = "rgb") -> NDArray[np.float32]: ...  # (feature_count, D), a copy
    @property
    def engine_version(self) -> str: ...

def adapt(  # (n, D) features as a session adapts them by a matrix (D, D)
    features: NDArray[np.float32], matrix: NDArray[np.float32]
) -> NDArray[np.float32]: ...

class RunResult:
    score: float
    p_value: float
    decision: str  # "uncalibrated" | "normal" | "anomalous" | "wrong_part"
    map_maximum: float
    worst_patch: int
    nearest_row: int
    product: int  # its number; whose bank and thresholds were used
    gate_ratio: float  # 0 without a gate; above 1: "wrong_part"
    prepare_ns: int
    engine_ns: int
    score_ns: int
    map_ns: int

class Corrections:
    """The journal of a package (csrc/corrections). Every change is on the disk when its call returns."""

    def __init__(self, package: Package, path: str, max_added_rows: int = 0) -> None: ...
    def refresh(self) -> None: ...
    def propose(self, candidate: dict[str, Any], name: str, note: str, image_sha256: bytes, time: int) -> int: ...
    def confirm(self, ids: Sequence[int], text: str, time: int) -> int: ...
    def reject(self, ids: Sequence[int], text: str, time: int) -> int: ...
    def remove(self, product: int, rows: Sequence[int], text: str, time: int) -> int: ...
    def undo(self, text: str, time: int) -> int: ...  # → the operation that was undone
    def compact(
        self, output: str, engine: EngineOptions, progress: Callable[[str, int, int], None] | None = None
    ) -> str: ...  # → the new package's id
    @property
    def operations(self) -> list[dict[str, Any]]:
        """sequence, type, product, time, text, named, undone_by (0: in force)"""
    @property
    def proposals(self) -> list[dict[str, Any]]:
        """id, product, name, note, image_sha256, score, threshold, patches, first_row, standing, confirmed_by,
        evicted_by
        """

    def changes(
        self, product: int = 0
    ) -> dict[str, Any]: ...  # removed (r,), numbers (n,) uint32; added (n, D) float32
    @property
    def path(self) -> str: ...
    @property
    def exists(self) -> bool: ...
    @property
    def head(self) -> str: ...
    @property
    def torn_bytes(self) -> int: ...
    @property
    def max_added_rows(self) -> int: ...

class Session:
    def __init__(self, package: Package, engine: EngineOptions, memory_limit_bytes: int = 0) -> None: ...
    def run(self, image: NDArray[Any], color: str = "rgb") -> RunResult: ...
    def patch_scores(self) -> NDArray[np.float32]: ...  # (h, w) of the last run, a copy
    def patch_distances(self) -> NDArray[np.float32]: ...  # (h, w), before they are weighed by position; a copy
    def nearest_rows(self) -> NDArray[np.int64]: ...  # (h, w)
    def patch_features(self) -> NDArray[np.int64]: ...  # (h, w) of which feature, tile after tile, each score is
    def anomaly_map(  # 0: config.map_size; into out, C-contiguous, if given, and returned
        self, height: int = 0, width: int = 0, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]: ...
    def inside(self, height: int, width: int) -> NDArray[np.bool_] | None: ...  # region of interest; None: all
    def prepare(self, image: NDArray[Any], color: str = "rgb") -> NDArray[np.float32]: ...  # (tiles, 3, H, W)
    def map_p_value(self, peak: float) -> float: ...  # of a region, among the calibration maps' maxima
    def embeddings(self) -> NDArray[np.float32]: ...  # (features, D) of the last run, a copy
    def apply(self, corrections: Corrections) -> list[dict[str, Any]]: ...  # → applied
    def candidate(self) -> dict[str, Any]: ...  # of the last run: product, score, threshold, patches (n,), rows (n, D)
    @property
    def applied(self) -> list[dict[str, Any]]:
        """By product: added_rows, removed_rows, calibration: fitted, exact, bounded, kept or stale; bounded_parts"""
    def self_test(self) -> dict[str, Any]: ...  # images, largest_relative_difference, largest_map_difference, tolerance
    @property
    def config(self) -> Config: ...
    @property
    def calibration(self) -> dict[str, Any]:
        """Of the first product: calibrated, false_alarm_rate, threshold, map_threshold, n, image_count, scores (n,),
        map_maxima (n,)"""

    def calibration_of(self, product: int) -> dict[str, Any]: ...
    def select(self, product: int | None) -> None: ...  # None: by the gates
    def has_gate(self, product: int) -> bool: ...
    @property
    def engine_version(self) -> str: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def bank_rows(self) -> int: ...
