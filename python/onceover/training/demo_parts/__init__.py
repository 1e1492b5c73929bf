"""The parts of the demo data set: one file per product, each drawn as a camera over a line would see it.

A new product is one file with a `PRODUCT`, and one line here.
"""

from __future__ import annotations

from onceover.training.demo_parts import board, fabric, flange
from onceover.training.demo_parts.product import Defect, Product

PRODUCTS: tuple[Product, ...] = (flange.PRODUCT, fabric.PRODUCT, board.PRODUCT)

__all__ = ["PRODUCTS", "Defect", "Product"]
