"""Characters of the fonts that matplotlib ships, of any that look alike only the first."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageFont

# Upright styles only: in italics several Cyrillic letters take the shape of other letters.
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
)
FEWEST_FONTS = 4
CATEGORIES = ("Lu", "Ll", "Lo", "Nd", "Po", "Sc", "Sm", "So")
TOO_ALIKE = 0.88
CANVAS = 56
BOX = 40


@dataclass(frozen=True)
class GlyphShapes:
    """One character in the fonts that have it.

    Attributes:
        character: as a string.
        shapes: ink [fonts, CANVAS, CANVAS] uint8, 255 where there is ink, the longer side scaled to BOX pixels.
        fonts: names of these fonts.
    """

    character: str
    shapes: NDArray[np.uint8]
    fonts: tuple[str, ...]

    def in_font(self, font: str) -> "GlyphShapes":
        """The character in one of its fonts."""
        index = self.fonts.index(font)
        return GlyphShapes(self.character, self.shapes[index : index + 1], (font,))


def distinct_characters() -> list[GlyphShapes]:
    """Every character that at least four of the fonts have and that looks unlike those before it."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    paths = [folder / f"{name}.ttf" for name in FONTS]
    charsets = [frozenset(FT2Font(str(path)).get_charmap()) for path in paths]
    fonts = [ImageFont.truetype(path, 80, layout_engine=ImageFont.Layout.BASIC) for path in paths]
    glyphs = []
    for code in filter(_is_candidate, sorted(charsets[0])):
        having = [number for number, charset in enumerate(charsets) if code in charset]
        if len(having) < FEWEST_FONTS:
            continue
        drawn = {number: _draw(chr(code), fonts[number]) for number in having}
        shapes = {FONTS[number]: shape for number, shape in drawn.items() if shape is not None}
        if shapes:
            glyphs.append(GlyphShapes(chr(code), np.stack([*shapes.values()]), tuple(shapes)))
    return _drop_lookalikes(glyphs)


def _is_candidate(code: int) -> bool:
    """Characters without a diacritic that Unicode composes, and no box drawing, block or Braille patterns."""
    character = chr(code)
    return (
        unicodedata.category(character) in CATEGORIES
        and unicodedata.normalize("NFKD", character) == character
        and not 0x2500 <= code < 0x25A0
        and not 0x2800 <= code < 0x2900
    )


def _draw(character: str, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8] | None:
    """The character scaled to fill BOX, in the middle of the canvas; None if it leaves no ink.

    Size and place are taken away because the distortions of the data set change them: a full stop and a bullet, or a
    small and a capital C, must not count as two classes.
    """
    mask = font.getmask(character, "L")
    if 0 in mask.size:
        return None
    ink = Image.frombytes("L", mask.size, bytes(mask))
    scale = BOX / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(ink, ((CANVAS - ink.width) // 2, (CANVAS - ink.height) // 2))
    return np.asarray(canvas)


def _drop_lookalikes(glyphs: Sequence[GlyphShapes]) -> list[GlyphShapes]:
    """Keep a character if its correlation with each one kept before is low in the first font that has it."""
    fingerprints = np.stack([_fingerprint(glyph.shapes[0]) for glyph in glyphs])
    alike = fingerprints @ fingerprints.T > TOO_ALIKE
    kept: list[int] = []
    for index in range(len(glyphs)):
        if not alike[index, kept].any():
            kept.append(index)
    return [glyphs[index] for index in kept]


def _fingerprint(shape: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The shape blurred, centred and scaled to length one, so that a dot product is a correlation."""
    image = Image.fromarray(shape).filter(ImageFilter.GaussianBlur(2)).reduce(2)
    centred: NDArray[np.float64] = np.asarray(image, dtype=np.float64).ravel()
    centred = centred - centred.mean()
    return centred / math.hypot(*centred)
