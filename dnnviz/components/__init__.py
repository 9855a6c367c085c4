"""What all pages are made of: the shell, the context bar, the three columns, cards and controls."""

from dnnviz.components.controls import (
    checklist,
    empty,
    hidden,
    how_to_read,
    labelled,
    note,
    page_link,
    radios,
    section,
    segmented,
    select,
    url_id,
)
from dnnviz.components.details import bars, image_url, number, percent, thumbnail, unit_bars
from dnnviz.components.grid_controls import CELLS, KINDS, STATS, kinds_checklist
from dnnviz.components.page import alerts, context_bar, epoch_controls, no_runs, page, run_select, show_controls
from dnnviz.components.shell import register, shell
from dnnviz.components.unit_card import unit_card
from dnnviz.endpoints import context

__all__ = [
    "CELLS",
    "KINDS",
    "STATS",
    "alerts",
    "bars",
    "checklist",
    "context",
    "context_bar",
    "empty",
    "epoch_controls",
    "hidden",
    "how_to_read",
    "image_url",
    "kinds_checklist",
    "labelled",
    "no_runs",
    "note",
    "number",
    "page",
    "page_link",
    "percent",
    "radios",
    "register",
    "run_select",
    "section",
    "segmented",
    "select",
    "shell",
    "show_controls",
    "thumbnail",
    "unit_bars",
    "unit_card",
    "url_id",
]
