"""How checkpoint files of others name our parameters: explicit rules beside each architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class NameMap:
    """source: whose names, e.g. "official" or "timm". rules: (pattern, replacement), a None drops the key.

    The first pattern that matches the whole key renames it, with groups as in `re.sub`; a key that no pattern matches
    does not belong to this layout.
    """

    source: str
    rules: tuple[tuple[str, str | None], ...]

    def rename(self, key: str) -> str | None:
        """Our key; None for one to drop. Raises KeyError for a key of another layout."""
        for pattern, replacement in self.rules:
            match = re.fullmatch(pattern, key)
            if match is not None:
                return None if replacement is None else match.expand(replacement)
        raise KeyError(key)


__all__ = ["NameMap"]
