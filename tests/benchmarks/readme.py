"""Where a benchmark puts its table: between two marks in README.md."""

from __future__ import annotations

from dnnviz.settings import ROOT


def put(name: str, table: str) -> None:
    """Replace what stands between `<!-- name: begin -->` and `<!-- name: end -->`; raises ValueError where README.md lacks a mark."""
    file, begin, end = ROOT / "README.md", f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = file.read_text(encoding="utf-8")
    start, stop = text.index(begin) + len(begin), text.index(end)
    file.write_text(f"{text[:start]}\n{table}\n{text[stop:]}", encoding="utf-8")
