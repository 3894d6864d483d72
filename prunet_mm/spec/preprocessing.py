"""How images become what a network's weights were trained on, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prunet_mm.spec.validation import Flag, Many, Spec, expecting

Value = Annotated[
    float, Field(allow_inf_nan=False), expecting('a number in units of pixel values, 0 to 255')
]
Deviation = Annotated[
    float, Field(gt=0, allow_inf_nan=False), expecting('a positive number of pixel values')
]
Share = Annotated[float, Field(gt=0, le=1), expecting('a number above 0 and up to 1')]
Interpolation = Annotated[
    Literal['bicubic', 'bilinear', 'lanczos', 'nearest'],
    expecting('"bicubic", "bilinear", "lanczos" or "nearest"'),
]


class Preprocessing(Spec):
    """From an image to the input of a classifier: resize, crop at the centre, normalise.

    Attributes:
        mean: Taken off each channel, red first, in units of pixel values (0 to 255).
        std: What each channel is divided by then, in the same units.
        crop: Side of the crop, which is the network's resolution, as a share of the shorter edge.
        squash: Resize to a square instead, whatever the image's proportions.
        interpolation: Of resizing, which averages over what a new pixel covers, as pillow does.
    """

    mean: Many[Value]
    std: Many[Deviation]
    crop: Share = 0.875
    squash: Flag = False
    interpolation: Interpolation = 'bicubic'

    def edge(self, resolution: int) -> int:
        """Pixels of the shorter edge that a crop of ``resolution`` pixels is taken from."""
        return int(resolution / self.crop)
