"""Charts beside the playback: accuracy and loss, and figures of the layers, over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dnnviz.theme import PALETTE, template

NAMED_LAYERS = 16  # up to so many layers each has its name on the axis; beyond, every n-th
LINE_LEGEND = 8
FIRST_LAYER = "#3d8fd1"  # lines go from this blue, next to the input, to the accent at the output
SPLIT_STYLES = (("accent", "solid"), ("muted", "dot"), ("ink", "dash"), ("muted", "dashdot"))


def metrics_chart(epochs: Sequence[int], accuracy: Mapping[str, Sequence[float]], loss: Mapping[str, Sequence[float]], theme: str) -> go.Figure:
    """Accuracy (left) and loss (right) over the epochs, a line a split; one value an epoch, NaN where there is none."""
    colours = PALETTE.get(theme, PALETTE["light"])
    shown = [(name, values) for name, values in (("accuracy", accuracy), ("loss", loss)) if values]
    figure = make_subplots(rows=1, cols=max(1, len(shown)), horizontal_spacing=0.12)
    x = np.asarray(epochs)
    for column, (name, lines) in enumerate(shown, start=1):
        for i, (split, values) in enumerate(lines.items()):
            colour, dash = _split_style(i, len(lines))
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=np.asarray(values, dtype=float),
                    name=split,
                    showlegend=False,
                    mode="lines+markers",
                    marker={"size": 4},
                    line={"color": colours[colour], "width": 2, "dash": dash},
                    hovertemplate="%{y:.1%}" if name == "accuracy" else "%{y:.3g}",
                ),
                row=1,
                col=column,
            )
        percent = {"tickformat": ".0%"} if name == "accuracy" else {"rangemode": "tozero"}
        figure.update_yaxes({"nticks": 4, **percent}, row=1, col=column)
        figure.update_xaxes({"title": "epoch", "nticks": 6}, row=1, col=column)
        axis = "" if column == 1 else str(column)
        figure.add_annotation(
            {"text": name, "xref": f"x{axis} domain", "yref": f"y{axis} domain", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
            showarrow=False,
            font={"size": 12, "color": colours["muted"]},
        )
    figure.update_layout(
        template=template(theme),
        margin={"l": 36, "r": 12, "t": 20, "b": 34},
        hovermode="x unified",
    )
    return figure


def layers_chart(
    epochs: Sequence[int], names: Sequence[str], values: np.ndarray, figure: str, theme: str, *, lines: bool = False, palette: str = "red"
) -> go.Figure:
    """A figure of every layer over the epochs, as a heatmap (layers downwards) or as lines; snapshots are evenly spaced.

    values: float [E, L], a figure of `dnnviz.analysis.evolution.FIGURES`. In the heatmap, mean activations are divided by
    the largest of their layer: layers differ by orders of magnitude, and the question is how each one moves.
    """
    colours = PALETTE.get(theme, PALETTE["light"])
    share = figure == "dead"
    template_text = "epoch %{customdata[0]}: %{customdata[1]}"
    texts = np.array([[(str(epoch), _text(value, share)) for epoch, value in zip(epochs, row, strict=True)] for row in values.T], dtype=object)
    positions = np.arange(len(epochs))
    result = go.Figure()
    if lines:
        for i, name in enumerate(names):
            result.add_trace(
                go.Scatter(
                    x=positions,
                    y=values[:, i],
                    name=name,
                    mode="lines+markers",
                    marker={"size": 3},
                    line={"color": _mix(FIRST_LAYER, colours["accent"], i / max(1, len(names) - 1)), "width": 1.7},
                    opacity=0.9,
                    customdata=texts[i],
                    hovertemplate=f"<b>%{{fullData.name}}</b><br>{template_text}<extra></extra>",
                )
            )
        result.update_yaxes(nticks=5, rangemode="tozero", tickformat=".0%" if share else None)
        result.update_layout(showlegend=len(names) <= LINE_LEGEND)
    else:
        step = max(1, -(-len(names) // NAMED_LAYERS))
        result.add_trace(
            go.Heatmap(
                x=positions,
                y=np.arange(len(names)),
                z=_relative(values).T if figure == "mean" else values.T,
                zmin=0,
                zmax=1 if figure == "mean" else _ceiling(values),
                colorscale=_scale(colours, theme, palette),
                customdata=texts,
                xgap=1,
                ygap=1 if len(names) <= 40 else 0,
                hovertemplate=f"<b>%{{text}}</b><br>{template_text}<extra></extra>",
                text=np.repeat(np.array(names, dtype=object)[:, None], len(epochs), axis=1),
                colorbar={
                    "thickness": 7,
                    "outlinewidth": 0,
                    "tickfont": {"size": 10, "color": colours["muted"]},
                    "nticks": 4,
                    "xpad": 6,
                    "tickformat": ".0%" if share or figure == "mean" else None,
                },
            )
        )
        result.update_yaxes(
            autorange="reversed",
            showgrid=False,
            zeroline=False,
            ticks="",
            tickvals=np.arange(0, len(names), step),
            ticktext=[_short(name) for name in names[::step]],
            tickfont={"size": 10},
        )
    stride = -(-len(epochs) // 14)
    result.update_xaxes(
        title="epoch",
        showgrid=False,
        zeroline=False,
        ticks="",
        tickvals=positions[::stride],
        ticktext=[str(e) for e in epochs[::stride]],
        range=[-0.5, len(epochs) - 0.5],
    )
    result.update_layout(template=template(theme), margin={"l": 40, "r": 8, "t": 8, "b": 36}, hovermode="closest", clickmode="event")
    return result


def line_style(index: int, count: int, theme: str) -> dict[str, str]:
    """How the line of a split looks, as CSS of a short piece of it; legends stand outside the charts, which are small."""
    colour, dash = _split_style(index, count)
    return {
        "borderTop": f"2px {'solid' if dash == 'solid' else 'dotted' if dash == 'dot' else 'dashed'} {PALETTE.get(theme, PALETTE['light'])[colour]}"
    }


def _split_style(index: int, count: int) -> tuple[str, str]:
    # The last split, which is the one held out where there are several, has the accent.
    return SPLIT_STYLES[(count - 1 - index) % len(SPLIT_STYLES)]


def _relative(values: np.ndarray) -> np.ndarray:
    """Share of the largest value of each column; a layer that is nowhere above zero stays at zero."""
    largest = np.nanmax(np.where(np.isfinite(values), values, -np.inf), axis=0)
    return np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)


def _ceiling(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _text(value: float, share: bool) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if share else f"{value:.3g}"


def _short(name: str) -> str:
    return name if len(name) <= 18 else "…" + name[-17:]


def _scale(colours: Mapping[str, str], theme: str, palette: str) -> str | list[list[object]]:
    if palette == "cividis":
        return "Cividis" if theme == "dark" else "Cividis_r"
    return [[0, colours["cell0"]], [1, colours["cell1"]]]


def _mix(a: str, b: str, share: float) -> str:
    """The colour between two of the form `#rrggbb`."""
    channels = ((int(a[i : i + 2], 16), int(b[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(low + (high - low) * share):02x}" for low, high in channels)
