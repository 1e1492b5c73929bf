"""TinyViT, Wu et al. 2022, arXiv:2207.10666, table 1: convolutions up to stride 4, then attention in square windows.

State-dict keys are those of the official checkpoints. Departure: no drop path, which exists only while training from
scratch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceover.backbones.backbone import IMAGENET_NORMALIZATION, Backbone, StageInfo
from onceover.backbones.folding import fold_norm_behind
from onceover.backbones.name_map import NameMap
from onceover.errors import InputError, UsageError

STRIDES = (4, 8, 16, 32)  # of layers.0 … layers.3; taps are taken before a layer's downsampling
DEPTHS = (2, 2, 6, 2)
HEAD_DIM = 32  # of queries, keys and values, in every layer of every variant
PUBLISHED_WINDOW = 7  # for images of 224; at 256 a window of 8 needs no padding and costs a quarter less


def windows_of(window: int) -> tuple[int, int, int, int]:
    """Cells along a side of the windows of each layer (the first layer has none): 7 → 7, 7, 14, 7."""
    return window, window, 2 * window, window


class ConvBN(nn.Module):
    """A convolution without bias and its batch norm; folded, a convolution with a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.bn(self.c(x))
        return y

    def fold_(self) -> None:
        """The norm into the convolution."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.c, self.bn = fold_norm_behind(self.c, self.bn), nn.Identity().eval()


class PatchEmbed(nn.Module):
    """The image at a quarter of its resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.seq = nn.Sequential(ConvBN(3, half, 3, stride=2), nn.GELU(), ConvBN(half, channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, ceil(H / 4), ceil(W / 4))."""
        y: Tensor = self.seq(x)
        return y


class MBConv(nn.Module):
    """An inverted residual whose last activation comes after the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.conv1 = ConvBN(channels, hidden)
        self.conv2 = ConvBN(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBN(hidden, channels)
        assert isinstance(self.conv3.bn, nn.BatchNorm2d)
        nn.init.zeros_(self.conv3.bn.weight)  # an untrained block passes its input on

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """From one layer to the next: other channels, half the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(inputs, outputs)
        self.conv2 = ConvBN(outputs, outputs, 3, stride=2, groups=outputs)
        self.conv3 = ConvBN(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / 2), ceil(W / 2))."""
        y: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return y


class RelativePositions(nn.Module):
    """Which entry of a bias table belongs to a pair of tokens of a window; one instance serves all blocks of its size.

    The entry is |dy| · size + |dx|. A buffer, so that an exported graph holds it as one constant; never saved.
    """

    index: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        line = torch.arange(size)
        distance = (line[:, None] - line[None, :]).abs()  # (size, size)
        index = distance[:, None, :, None] * size + distance[None, :, None, :]  # (y, x, y', x')
        self.register_buffer("index", index.flatten(), persistent=False)
        self.size, self.tokens = size, size * size

    def forward(self, table: Tensor) -> Tensor:
        """(heads, size · size) → (heads, N, N) for the N = size · size tokens of a window, row-major."""
        return table.index_select(1, self.index).reshape(-1, self.tokens, self.tokens)


class Attention(nn.Module):
    """Attention of the tokens of a window to each other, with its own norm ahead."""

    def __init__(self, channels: int, positions: RelativePositions) -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.scale = HEAD_DIM**-0.5
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(self.heads, positions.tokens))
        self.positions = positions

    def forward(self, tokens: Tensor) -> Tensor:
        """(windows, N, C) → the same shape. Written out, as torch's fused attention exports to more nodes."""
        n, c = tokens.shape[1], tokens.shape[2]
        qkv = self.qkv(self.norm(tokens)).reshape(-1, n, self.heads, 3 * HEAD_DIM)  # per head: q, k, v
        q, k, v = qkv.transpose(1, 2).chunk(3, dim=-1)  # (windows, heads, N, HEAD_DIM) each
        if self.scale != 1.0:
            q = q * self.scale
        logits = q @ k.transpose(-2, -1) + self.positions(self.attention_biases)  # (windows, heads, N, N)
        mixed = (torch.softmax(logits, dim=-1) @ v).transpose(1, 2).reshape(-1, n, c)  # heads side by side
        y: Tensor = self.proj(mixed)
        return y

    def fold_(self) -> None:
        """The norm's scale and shift, and the scale of the queries, into the linear layer behind.

        Exact with padding too: padding is ahead of the norm, which makes zeros of it, the same as elsewhere.
        """
        self.norm = _fold_layer_norm(self.norm, self.qkv)
        with torch.no_grad():
            for parameter in (self.qkv.weight, self.qkv.bias):
                parameter.view(self.heads, 3, HEAD_DIM, -1)[:, 0] *= self.scale
        self.scale = 1.0


class Mlp(nn.Module):
    """Two linear layers on each cell, with their own norm ahead."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, C) → the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(self.norm(tokens))))
        return y

    def fold_(self) -> None:
        """The norm's scale and shift into the linear layer behind."""
        self.norm = _fold_layer_norm(self.norm, self.fc1)


class Block(nn.Module):
    """Attention in windows, a depthwise convolution across their borders, an MLP; the convolution has no skip."""

    def __init__(self, channels: int, window: int, positions: RelativePositions) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(channels, positions)
        self.local_conv = ConvBN(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape.

        Only the convolution has the channels first. Elsewhere they are last, so that windows are moved as whole rows
        of memory: in onnxruntime, TinyViT-5M's transposes at 256 take 3 ms instead of 8.
        """
        height, width = x.shape[2], x.shape[3]
        cells = x.permute(0, 2, 3, 1)  # (B, C, H, W) → (B, H, W, C)
        cells = cells + from_windows(self.attn(to_windows(cells, self.window)), self.window, height, width)
        cells = self.local_conv(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y: Tensor = cells + self.mlp(cells)
        return y.permute(0, 3, 1, 2)


def to_windows(cells: Tensor, size: int) -> Tensor:
    """(B, H, W, C) → (B · rows · columns, size · size, C): tiles, zeros where they stick out at the right and bottom.

    No branch depends on the image size, so a graph exported with dynamic sizes is valid for all of them.
    """
    height, width, channels = cells.shape[1:]
    rows, columns = windows_along(height, size), windows_along(width, size)
    cells = F.pad(cells, (0, 0, 0, columns * size - width, 0, rows * size - height))
    tiles = cells.reshape(-1, rows, size, columns, size, channels).transpose(2, 3)
    return tiles.reshape(-1, size * size, channels)


def from_windows(tokens: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`: (B · rows · columns, size · size, C) → (B, height, width, C)."""
    rows, columns, channels = windows_along(height, size), windows_along(width, size), tokens.shape[2]
    tiles = tokens.reshape(-1, rows, columns, size, size, channels).transpose(2, 3)
    return tiles.reshape(-1, rows * size, columns * size, channels)[:, :height, :width]


def windows_along(length: int, size: int) -> int:
    """ceil(length / size). Written as -(-length // size) a dynamic graph is wrong: ONNX divides towards zero."""
    return (length + size - 1) // size


class Layer(nn.Module):
    """The blocks of one resolution, and the way to the next one (none in the last layer that is built)."""

    def __init__(self, blocks: list[nn.Module], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = nn.Identity() if downsample is None else downsample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) → the stage, of the same shape, and what the next layer takes."""
        stage: Tensor = self.blocks(x)
        return stage, self.downsample(stage)


# timm's layers begin with the downsampling that ends ours, and its convolutions are called conv, not c.
NAME_MAPS = (
    NameMap(
        "official",
        (
            (r".+\.attention_bias_idxs", None),  # an index table; ours is computed
            (r"(patch_embed\.seq\.[02]\..+|layers\.[0-3]\.(?:blocks\.\d+|downsample)\..+)", r"\1"),
            (r"((?:norm_head|head)\.(?:weight|bias))", r"\1"),
        ),
    ),
    NameMap(
        "timm",
        (
            (r".+\.attention_bias_idxs", None),
            (r"patch_embed\.conv1\.conv\.(.+)", r"patch_embed.seq.0.c.\1"),
            (r"patch_embed\.conv1\.bn\.(.+)", r"patch_embed.seq.0.bn.\1"),
            (r"patch_embed\.conv2\.conv\.(.+)", r"patch_embed.seq.2.c.\1"),
            (r"patch_embed\.conv2\.bn\.(.+)", r"patch_embed.seq.2.bn.\1"),
            *(
                (rf"stages\.{i + 1}\.downsample\.(conv\d)\.{timm}\.(.+)", rf"layers.{i}.downsample.\1.{ours}.\2")
                for i in range(3)
                for timm, ours in (("conv", "c"), ("bn", "bn"))
            ),
            (r"stages\.(\d)\.blocks\.(.+)\.conv\.weight", r"layers.\1.blocks.\2.c.weight"),
            (r"stages\.(\d)\.blocks\.(.+)", r"layers.\1.blocks.\2"),
            (r"head\.norm\.(.+)", r"norm_head.\1"),
            (r"head\.fc\.(.+)", r"head.\1"),
        ),
    ),
)


class TinyViT(Backbone):
    """See the file's head. Built up to the last layer asked for; with `classes` whole, and the published head with it.

    `window` None is the published one. With another, bias tables are resized while weights are loaded (`adapted`).
    """

    name_maps = NAME_MAPS

    def __init__(
        self,
        dims: tuple[int, int, int, int],
        strides: tuple[int, ...] = (8, 16),
        window: int | None = None,
        classes: int = 0,
        depths: tuple[int, int, int, int] = DEPTHS,
    ) -> None:
        super().__init__()
        _check(strides, window)
        windows = windows_of(PUBLISHED_WINDOW if window is None else window)
        built = len(STRIDES) if classes else STRIDES.index(strides[-1]) + 1
        positions = {size: RelativePositions(size) for size in windows[1:built]}
        self.patch_embed = PatchEmbed(dims[0])
        layers = []
        for i in range(built):
            blocks: list[nn.Module] = [
                Block(dims[i], windows[i], positions[windows[i]]) if i else MBConv(dims[i]) for _ in range(depths[i])
            ]
            layers.append(Layer(blocks, PatchMerging(dims[i], dims[i + 1]) if i + 1 < built else None))
        self.layers = nn.ModuleList(layers)
        if classes:
            self.norm_head = nn.LayerNorm(dims[3])
            self.head = nn.Linear(dims[3], classes)
        self.normalization = IMAGENET_NORMALIZATION
        self.stages = tuple(StageInfo(f"layers.{i}", dims[i], s) for i, s in enumerate(STRIDES) if s in strides)
        self._initialize()

    def _initialize(self) -> None:
        """As the paper's public implementation: only linear layers differ from torch's own initialization."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32, normalized → stage features by rising stride."""
        taken = self._through(x, STRIDES.index(self.stages[-1].stride))
        return [taken[STRIDES.index(stage.stride)] for stage in self.stages]

    def _through(self, x: Tensor, last: int) -> list[Tensor]:
        """What layers 0 … `last` give."""
        x, taken = self.patch_embed(x), []
        for layer in self.layers[: last + 1]:
            stage, x = layer(x)
            taken.append(stage)
        return taken

    def classify(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalized → logits (B, classes); UsageError where no classifier was built."""
        if not hasattr(self, "head"):
            raise UsageError("this TinyViT was built without a classifier; pass classes=1000 to build one")
        pooled = self._through(x, len(STRIDES) - 1)[-1].mean(dim=(2, 3))  # (B, C, h, w) → (B, C)
        logits: Tensor = self.head(self.norm_head(pooled))
        return logits

    def may_ignore(self, key: str) -> bool:
        """True for layers behind the cut, the way there, and the head, where they were not built."""
        room, _, rest = key.partition(".")
        if room == "layers":
            index, _, part = rest.partition(".")
            last = len(self.layers) - 1
            behind = index.isdigit() and last < int(index) < len(STRIDES)
            return behind or (index == str(last) and part.startswith("downsample.") and last + 1 < len(STRIDES))
        return room in {"norm_head", "head"} and not hasattr(self, "head")

    def adapted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same weights with every bias table at the size of our windows; what is no bias table is left as it is."""
        tables = {
            f"{name}.attention_biases": module.positions.size
            for name, module in self.named_modules()
            if isinstance(module, Attention)
        }
        return {
            key: resize_bias(value, tables[key]) if key in tables and _window_of(value) else value
            for key, value in tensors.items()
        }


def resize_bias(table: Tensor, window: int) -> Tensor:
    """(heads, w · w) of windows of any size w → (heads, window · window), bicubic; the same size is left alone.

    Raises InputError for a table of no square window.
    """
    size = _window_of(table)
    if size == 0:
        raise InputError(f"a table of attention biases needs a shape (heads, w * w), got {tuple(table.shape)}")
    if size == window:
        return table
    image = table.reshape(1, -1, size, size).float()  # a head is a channel
    resized = F.interpolate(image, size=(window, window), mode="bicubic", align_corners=False)
    return resized.reshape(-1, window * window).to(table.dtype)


def _window_of(table: Tensor) -> int:
    """w of a bias table (heads, w · w); 0 for a tensor that is none."""
    size = math.isqrt(table.shape[1]) if table.dim() == 2 else 0
    return size if table.dim() == 2 and size * size == table.shape[1] else 0


def _fold_layer_norm(norm: nn.LayerNorm, linear: nn.Linear) -> nn.LayerNorm:
    """The norm that is left of linear(norm(x)) with γ and β inside `linear`: W' = W · γ per input, b' = b + W β."""
    if not norm.elementwise_affine:
        return norm
    with torch.no_grad():
        weight = linear.weight.double()
        linear.bias.copy_(linear.bias.double() + weight @ norm.bias.double())
        linear.weight.copy_(weight * norm.weight.double())
    return nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False).eval()


def _check(strides: tuple[int, ...], window: int | None) -> None:
    if not strides or list(strides) != sorted(set(strides)) or not set(strides) <= set(STRIDES):
        raise UsageError(f"strides must be rising and among {list(STRIDES)}, got {strides}")
    if window is not None and window < 1:
        raise UsageError(f"window must be at least 1 cell, or None for the published one; got {window}")


def tinyvit_5m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> TinyViT:
    """80.7 % top-1 on ImageNet-1k, distilled on ImageNet-22k."""
    return TinyViT((64, 128, 160, 320), strides, window, classes)


def tinyvit_11m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> TinyViT:
    """83.2 %."""
    return TinyViT((64, 128, 256, 448), strides, window, classes)


def tinyvit_21m(strides: tuple[int, ...] = (8, 16), window: int | None = None, classes: int = 0) -> TinyViT:
    """84.8 %."""
    return TinyViT((96, 192, 384, 576), strides, window, classes)


__all__ = ["TinyViT", "resize_bias", "tinyvit_5m", "tinyvit_11m", "tinyvit_21m", "windows_of"]
