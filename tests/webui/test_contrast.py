"""Words are legible: 4.5 to 1 against what they stand on, as WCAG 2.2 (1.4.3) asks."""

from __future__ import annotations

import re

import pytest

from chimeralab_webui import assets

WORDS = ("text", "muted", "faint", "good", "warn", "bad", "accent-strong")
GROUNDS = ("page", "surface", "sunken")


def tokens(theme: str) -> dict[str, str]:
    sheet = (assets.STATIC / "tokens.css").read_text()
    block = sheet.split("body, body.light {" if theme == "light" else "body.dark {")[1].split("}")[0]
    return dict(re.findall(r"--cl-([\w-]+): (#\w+);", block))


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_definition() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_are_legible_in_both_themes(theme: str) -> None:
    color = tokens(theme)
    pairs = [(word, ground) for word in WORDS for ground in GROUNDS] + [("bad", "bad-soft")]
    weak = {pair: found for pair in pairs if (found := contrast(color[pair[0]], color[pair[1]])) < 4.5}
    assert weak == {}
