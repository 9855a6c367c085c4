"""What the sections of a report are made of: text, tables, and pictures that are shown in the page and kept as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import ImageOps

from dnnviz.drawing import Drawing, as_image, as_svg
from dnnviz.explain.picture import png

_MARGIN = 12  # around a picture that is a file of its own


@dataclass(frozen=True)
class Picture:
    """A picture of a report: name of its file, what it shows, and drawings that stand below one another."""

    name: str
    title: str
    drawings: tuple[Drawing, ...]

    def html(self) -> str:
        """Each drawing as a figure, so that a page may end between them."""
        return "".join(f"<figure>{as_svg(drawing)}</figure>" for drawing in self.drawings)

    def png(self, scale: float) -> bytes:
        """The same as one PNG file of `scale` pixels a unit of the page."""
        return png(ImageOps.expand(as_image(self.drawings, scale), round(_MARGIN * scale), "#ffffff"))


Part = str | Picture  # of a section: HTML text or a picture


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    """A table as HTML; numbers: columns that stand on the right."""

    def cell(tag: str, i: int, value: Any) -> str:
        side = ' class="n"' if i in numbers else ""
        return f"<{tag}{side}>{escape(str(value))}</{tag}>"

    body = "".join(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    top = f"<thead><tr>{''.join(cell('th', i, name) for i, name in enumerate(head))}</tr></thead>" if head else ""
    return f"<table>{top}<tbody>{body}</tbody></table>"


def paragraph(words: str) -> str:
    """A paragraph as HTML."""
    return f"<p>{escape(words)}</p>"


def figures(value: float, digits: int) -> str:
    """A number with so many digits behind the point; – where it is none."""
    text = f"{value:.{digits}f}"
    return (text.replace("-", "−") if float(text) else text.lstrip("-")) if np.isfinite(value) else "–"


def three(value: float) -> str:
    """A number with three digits that count."""
    if not np.isfinite(value) or value == 0:
        return "0" if value == 0 else "–"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}".replace("-", "−")
    return figures(value, max(0, 2 - int(np.floor(np.log10(abs(value))))))


def share(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.2f} %"
