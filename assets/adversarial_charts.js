// Charts of the adversarial page as SVG text, the same on the screen and in a saved picture.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.adversarial;
  const [TOP, BOTTOM, LEFT] = [12, 38, 46];
  const fixed = (value) => (Math.round(value * 10) / 10).toString();

  // Text; room: pixels it may take (about 6 a letter at this size).
  page.words = function (x, y, text, { size = 11.5, fill = dv.colour("ink"), bold = false, anchor = "start", room = Infinity } = {}) {
    const most = Math.floor(room / (0.55 * size));
    const shown = text.length > most ? text.slice(0, Math.max(1, most - 1)) + "…" : text;
    return `<text x="${fixed(x)}" y="${fixed(y)}" font-size="${size}" fill="${fill}"${bold ? ' font-weight="600"' : ""}${anchor === "start" ? "" : ` text-anchor="${anchor}"`}>${dv.escape(shown)}</text>`;
  };
  // A few round places between two values.
  page.ticks = function (low, high, wanted = 4) {
    const span = high - low || 1;
    const power = 10 ** Math.floor(Math.log10(span / wanted));
    const step = [1, 2, 5, 10].map((n) => n * power).find((each) => span / each <= wanted + 0.5) || span;
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(Math.abs(at) < step * 1e-6 ? 0 : at);
    return found;
  };
  const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 1000 || Number.isInteger(value) ? dv.count(Math.round(value)) : Number(value.toPrecision(3)).toString()).replace("-", "−");

  // The frame of a chart: places of its values, grid, axes. right: pixels kept free for names at the ends of lines.
  function frame({ width, height, x, y, xTitle, yTitle, xTicks, yTicks, xText = short, yText = short, right = 24 }) {
    const [x0, x1, y0, y1] = [LEFT, width - right, height - BOTTOM, TOP];
    const X = (value) => x0 + ((value - x[0]) / (x[1] - x[0] || 1)) * (x1 - x0);
    const Y = (value) => y0 + ((value - y[0]) / (y[1] - y[0] || 1)) * (y1 - y0);
    const [line, muted] = [dv.colour("line"), dv.colour("muted")];
    const parts = [];
    for (const at of yTicks || page.ticks(y[0], y[1])) {
      parts.push(`<line x1="${x0}" x2="${fixed(x1)}" y1="${fixed(Y(at))}" y2="${fixed(Y(at))}" stroke="${line}"/>`);
      parts.push(page.words(x0 - 6, Y(at) + 4, yText(at), { size: 11, fill: muted, anchor: "end" }));
    }
    for (const at of xTicks || page.ticks(x[0], x[1], 5)) parts.push(page.words(X(at), y0 + 16, xText(at), { size: 11, fill: muted, anchor: "middle" }));
    parts.push(page.words((x0 + x1) / 2, height - 5, xTitle, { size: 12, fill: muted, anchor: "middle" }));
    if (yTitle) parts.push(`<g transform="translate(11 ${fixed((y0 + y1) / 2)}) rotate(-90)">${page.words(0, 0, yTitle, { size: 12, fill: muted, anchor: "middle" })}</g>`);
    return { X, Y, x0, x1, y0, y1, svg: parts.join("") };
  }

  // Lines over common places; names stand at their ends, moved apart. series: [{name, colour, values, dash, wide, low, high, dots}].
  page.lines = function (options) {
    const { width, height, at, series } = options;
    const named = series.filter((each) => each.name);
    const right = named.length ? Math.min(150, Math.max(...named.map((each) => each.name.length)) * 6.4 + 18) : 24;
    const box = frame({ ...options, right });
    const { X, Y, y0, y1 } = box;
    const parts = [box.svg, options.under ? options.under(box) : ""];
    // Those that matter most lie on top.
    for (const each of [...series].sort((a, b) => Boolean(a.wide) - Boolean(b.wide))) {
      const xs = each.at || at;
      const points = each.values.map((value, i) => [xs[i], value]).filter(([, value]) => Number.isFinite(value));
      if (each.low) {
        const edge = [...xs.map((x, i) => [x, each.high[i]]), ...xs.map((x, i) => [x, each.low[i]]).reverse()];
        parts.push(`<polygon points="${edge.map(([x, y]) => fixed(X(x)) + "," + fixed(Y(y))).join(" ")}" fill="${each.colour}" fill-opacity="0.16"/>`);
      }
      const dash = each.dash ? ` stroke-dasharray="${each.dash}"` : "";
      parts.push(`<polyline points="${points.map(([x, y]) => fixed(X(x)) + "," + fixed(Y(y))).join(" ")}" fill="none" stroke="${each.colour}" stroke-width="${each.wide ? 2.4 : 1.6}" stroke-linejoin="round"${dash}/>`);
      if (each.dots || points.length === 1) for (const [x, y] of points) parts.push(`<circle cx="${fixed(X(x))}" cy="${fixed(Y(y))}" r="3" fill="${each.colour}"/>`);
    }
    const ends = named.map((each) => ({ each, y: Y(each.values[each.values.length - 1]) + 4 })).sort((a, b) => a.y - b.y);
    for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 14);
    for (let i = ends.length - 1; i >= 0; i--) ends[i].y = Math.min(ends[i].y, i === ends.length - 1 ? y0 + 4 : ends[i + 1].y - 14, y0 + 4);
    for (const { each, y } of ends) parts.push(page.words(box.x1 + 7, Math.max(y, y1), each.name, { fill: each.colour, bold: each.wide, room: right - 8 }));
    return { svg: parts.join(""), width, height, box };
  };

  // Two groups of values in common bins, as shares of each group. groups: [{name, colour, counts}], edges: their limits.
  page.histogram = function (options) {
    const { edges, groups } = options;
    const shares = groups.map((group) => {
      const total = group.counts.reduce((sum, n) => sum + n, 0) || 1;
      return group.counts.map((n) => n / total);
    });
    const most = Math.max(...shares.flat(), 0.01);
    const box = frame({ ...options, x: [edges[0], edges[edges.length - 1]], y: [0, most * 1.06], yText: (value) => Math.round(100 * value) + " %" });
    const { X, Y, y0 } = box;
    const parts = [box.svg];
    groups.forEach((group, g) => {
      const outline = [];
      shares[g].forEach((share, i) => {
        if (share > 0) parts.push(`<rect x="${fixed(X(edges[i]))}" y="${fixed(Y(share))}" width="${fixed(Math.max(0.5, X(edges[i + 1]) - X(edges[i])))}" height="${fixed(y0 - Y(share))}" fill="${group.colour}" fill-opacity="0.22"/>`);
        outline.push(`${fixed(X(edges[i]))},${fixed(Y(share))} ${fixed(X(edges[i + 1]))},${fixed(Y(share))}`);
      });
      parts.push(`<polyline points="${fixed(X(edges[0]))},${fixed(y0)} ${outline.join(" ")} ${fixed(X(edges[edges.length - 1]))},${fixed(y0)}" fill="none" stroke="${group.colour}" stroke-width="1.6"/>`);
      const name = page.words(box.x1 - 4, TOP + 10 + 16 * g, group.name, { fill: group.colour, bold: true, anchor: "end" });
      parts.push(name);
    });
    return { svg: parts.join(""), width: options.width, height: options.height, box };
  };

  // Room for a picture beside `taken` pixels of other things, at most `most`.
  page.room = (taken, most) => Math.max(420, Math.min(most, page.state.host.clientWidth - 44 - taken));

  // A chart as an element of the page. said: what it shows in a sentence. near: (x in values) → text beside the pointer, or null.
  page.chart = function (made, said, near) {
    const host = document.createElement("div");
    host.className = "adv-chart";
    host.innerHTML = `<svg width="${made.width}" height="${made.height}" viewBox="0 0 ${made.width} ${made.height}" role="img">${made.svg}</svg>`;
    const svg = host.firstChild;
    svg.setAttribute("aria-label", said);
    if (near) {
      const { X, x0, x1 } = made.box;
      const unit = (X(1) - X(0)) || 1;
      svg.addEventListener("mousemove", (event) => {
        const place = svg.getBoundingClientRect();
        const at = ((event.clientX - place.left) / place.width) * made.width;
        const text = at < x0 - 6 || at > x1 + 6 ? null : near((at - X(0)) / unit);
        if (text) page.tip(event, text);
        else page.tip();
      });
      svg.addEventListener("mouseleave", () => page.tip());
    }
    return host;
  };
  page.tip = function (event, text) {
    let box = document.getElementById("adversarial-tip");
    if (!box) {
      box = Object.assign(document.createElement("div"), { id: "adversarial-tip", className: "dv-tip" });
      document.body.append(box);
    }
    box.style.display = event ? "block" : "none";
    if (!event) return;
    box.innerHTML = text;
    box.style.left = Math.min(event.clientX + 14, window.innerWidth - box.offsetWidth - 8) + "px";
    box.style.top = Math.min(event.clientY + 14, window.innerHeight - box.offsetHeight - 8) + "px";
  };
})();
