"""The formats of weights by name, without anything heavy: the command line's parser reads them too."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["float32", "bfloat16", "int8"]
"""What an instruction's matrices are held in, and multiplied in: with float32 rows, with rows of bfloat16, or as signed
bytes of one scale a column, with rows as unsigned bytes of one scale and zero point each. Sums are float32 or exact."""

FORMATS: tuple[Format, ...] = get_args(Format)

WEIGHTS = ("auto", *FORMATS)
"""What users may ask for; "auto" is the checkpoint's own."""
