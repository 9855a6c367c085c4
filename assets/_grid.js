// The grid of units: one cell per unit, all layers under each other, any number of panels side by side.
// One canvas of the size of the window follows the scroll position, so that only what is seen is drawn.
(function () {
  "use strict";
  const dv = (window.dnnviz = window.dnnviz || {});
  const PAD = 22;
  const STAGE = 26;
  const EMPTY = 255; // level of a value that is not a number

  // -- colours ------------------------------------------------------------------------------------------------------
  const CIVIDIS = ["#00224e", "#2f3e6c", "#575d6d", "#7c7b78", "#a69d75", "#d3c164", "#fee838"];
  const parse = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  function ramp(stops) {
    const colours = stops.map(parse);
    return Array.from({ length: 256 }, (_, i) => {
      const at = (Math.min(i, 254) / 254) * (colours.length - 1);
      const low = Math.min(Math.floor(at), colours.length - 2);
      return "rgb(" + colours[low].map((c, k) => Math.round(c + (colours[low + 1][k] - c) * (at - low))).join(",") + ")";
    });
  }
  // 256 colours of a map: `sequential` (silent to strongest) or `diverging` (negative, zero, positive).
  dv.colours = function (map) {
    if (map === "diverging") return ramp([dv.colour("div-low"), dv.colour("div-mid"), dv.colour("div-high")]);
    if (dv.palette() === "cividis") return ramp(dv.theme() === "dark" ? CIVIDIS : CIVIDIS.slice().reverse());
    return ramp([dv.colour("cell0"), dv.colour("cell1")]);
  };
  dv.gradient = (map) => "linear-gradient(to right," + [0, 64, 127, 190, 254].map((i) => dv.colours(map)[i]).join(",") + ")";

  // -- values to levels ---------------------------------------------------------------------------------------------
  // ranges(values, layers, mode, given): [low, high] of each layer. Modes: `layer` (its own values, shifted to be
  // non-negative), `epochs` (given: Float32Array [L, 2], the range over all epochs), `all` (one range for all layers),
  // `clip` (its own, cut at the 98th percentile).
  dv.ranges = function (values, layers, mode, given) {
    const own = layers.map((layer, i) => {
      if (mode === "epochs" && given) return [Math.min(0, given[2 * i]), given[2 * i + 1]];
      let low = Infinity;
      let high = -Infinity;
      for (let u = layer.offset; u < layer.offset + layer.units; u++) {
        const v = values[u];
        if (v < low) low = v;
        if (v > high) high = v;
      }
      if (mode === "clip" && layer.units > 20) {
        const sorted = values.slice(layer.offset, layer.offset + layer.units).filter(Number.isFinite).sort();
        if (sorted.length) high = sorted[Math.min(sorted.length - 1, Math.floor(0.98 * sorted.length))];
      }
      return [Math.min(0, low), high];
    });
    if (mode !== "all") return own;
    const low = Math.min(...own.map((r) => r[0]).filter(Number.isFinite));
    const high = Math.max(...own.map((r) => r[1]).filter(Number.isFinite));
    return own.map(() => [low, high]);
  };
  // Levels 0–254 of values within the range of their layer; EMPTY where there is no value.
  dv.levels = function (values, layers, ranges) {
    const levels = new Uint8Array(values.length);
    layers.forEach((layer, i) => {
      const [low, high] = ranges[i];
      const factor = high > low ? 254 / (high - low) : 0;
      for (let u = layer.offset; u < layer.offset + layer.units; u++) {
        const v = values[u];
        levels[u] = Number.isFinite(v) ? Math.max(0, Math.min(254, Math.round((v - low) * factor))) : EMPTY;
      }
    });
    return levels;
  };

  // A layer's name as a label: long names without the stage, whose heading stands above.
  const shortName = (layer) => (layer.name.length > 21 && layer.name.startsWith(layer.stage + ".") ? "…" + layer.name.slice(layer.stage.length) : layer.name);

  // -- the grid -----------------------------------------------------------------------------------------------------
  dv.Grid = class {
    // host: an element inside a scrolling .dv-centre.
    // options: onPick(layer name, unit, panel), onFold(Set of folded stages and blocks), tip(layer, unit, panel) → html,
    // meta(layer) → text under the name, labelWidth, sideWidth, sideTitle, fit (as high as its rows, for more below it),
    // scroller: the element that scrolls the grid, where it is not .dv-centre,
    // rowHeight and rowGap (rows lower than 30 px have their name only), cellHeight (0: cells are square), strong(layer) → "strong", "alarm" or "".
    constructor(host, options) {
      this.host = host;
      this.options = Object.assign({ labelWidth: 152, sideWidth: 0, meta: () => "", rowHeight: 33, rowGap: 7, cellHeight: 0, strong: () => "" }, options);
      this.layers = [];
      this.panels = [];
      this.kinds = null;
      this.folded = new Set();
      this.order = null; // [U] unit at each position, or null
      this.cell = 0; // 0: by the number of units
      this.line = 0; // units in a line; 0: as many as fit
      this.side = null; // layer name → {share, text, hint, faint}
      this.picked = null;
      this.chosen = null; // Uint8Array [U]: units that are outlined beside the picked one, or null
      this.hovered = null;
      this.rows = [];
      host.classList.add("dv-grid");
      host.tabIndex = 0;
      host.setAttribute("role", "application");
      host.setAttribute("aria-label", "Grid of units. Arrow keys move between the units of a layer.");
      host.textContent = "";
      this.canvas = document.createElement("canvas");
      this.labels = document.createElement("div");
      this.labels.className = "dv-grid-labels";
      host.append(this.canvas, this.labels);
      this.tip = document.querySelector(".dv-tip") || document.body.appendChild(Object.assign(document.createElement("div"), { className: "dv-tip" }));
      this.scroller = this.options.scroller || host.closest(".dv-centre") || host.parentElement;
      this.onScroll = () => this.request();
      this.scroller.addEventListener("scroll", this.onScroll, { passive: true });
      this.resize = new ResizeObserver(() => this.layout());
      this.resize.observe(this.scroller);
      this.onTheme = () => this.request(true);
      document.addEventListener("dnnviz:theme", this.onTheme);
      host.addEventListener("mousemove", (e) => this.hover(e));
      host.addEventListener("mouseleave", () => this.hover(null));
      host.addEventListener("click", (e) => {
        const hit = this.hit(e);
        if (hit) this.pick(hit.layer, hit.unit, hit.panel);
      });
      host.addEventListener("keydown", (e) => this.key(e));
    }

    alive() {
      if (document.contains(this.host)) return true;
      this.resize.disconnect();
      document.removeEventListener("dnnviz:theme", this.onTheme);
      this.tip.style.display = "none";
      return false;
    }

    // set({layers, panels, kinds, folded, order, cell, side, picked}): whatever is given; lays out anew only when needed.
    // A panel: {title, levels: Uint8Array [U], values: Float32Array [U], map: "sequential"|"diverging", marks: Uint8Array [U]|null}.
    set(state) {
      const before = this.panels.length;
      const titles = this.panels.map((p) => p.title).join("|");
      Object.assign(this, state);
      const layoutKeys = ["layers", "kinds", "folded", "cell", "line", "side"];
      if (layoutKeys.some((key) => key in state) || this.panels.length !== before || this.panels.map((p) => p.title).join("|") !== titles) this.layout();
      else this.request();
    }

    // Height of a drawn cell whose width is `size`.
    tall(size) {
      return this.options.cellHeight ? this.options.cellHeight - 1 : size;
    }

    // Rows too low for a second line under the name.
    low() {
      return this.options.rowHeight < 30;
    }

    visible(layer) {
      return !this.kinds || this.kinds.has(layer.kind);
    }

    // Whether a layer is shown: its kind is, its stage is unfolded, and so is every block around it.
    unfolded(layer) {
      if (this.folded.has(layer.stage)) return false;
      for (const name of this.folded) if (layer.name.startsWith(name + ".")) return false;
      return true;
    }

    fold(name) {
      const next = new Set(this.folded);
      if (!next.delete(name)) next.add(name);
      if (this.options.onFold) this.options.onFold(next);
      else this.set({ folded: next });
    }

    layout() {
      if (!this.alive()) return;
      const width = this.scroller.clientWidth;
      this.view = this.scroller.clientHeight;
      const panels = Math.max(1, this.panels.length);
      const shown = this.layers.filter((l) => this.visible(l) && this.unfolded(l));
      const units = shown.reduce((sum, l) => sum + l.units, 0) * panels;
      this.pitch = this.cell || (units <= 2500 ? 19 : units <= 15000 ? 13 : units <= 40000 ? 9 : 6);
      if (panels > 1 && !this.cell) this.pitch = Math.min(this.pitch, 12);
      const left = PAD + this.options.labelWidth;
      const gap = panels > 1 ? 22 : 0;
      const room = Math.max(60, (width - left - PAD - this.options.sideWidth - gap * (panels - 1)) / panels);
      this.columns = Math.max(4, Math.floor(room / this.pitch));
      // Layers have 32, 64, 128 … units: slightly smaller cells where a whole line of them nearly fits.
      const whole = Math.ceil(this.columns / 32) * 32;
      const smaller = Math.floor(room / whole);
      if (!this.cell && !this.line && this.columns < whole && smaller >= this.pitch * 0.88) {
        this.pitch = smaller;
        this.columns = whole;
      }
      // Layers have 16, 32, 64 … units: lines of a multiple of 16 (8 where little fits) leave no straggler on a line of its own.
      const wider = Math.ceil(this.columns / 16) * 16;
      if (this.line) this.columns = this.line;
      else if (room / wider >= this.pitch - 2.5 && room / wider >= 5) {
        this.pitch = Math.min(this.pitch, Math.floor(room / wider));
        this.columns = wider;
      } else if (this.columns > 16) this.columns -= this.columns % 8;
      this.pitchY = this.options.cellHeight || this.pitch;
      this.panelLeft = Array.from({ length: panels }, (_, i) => left + i * (room + gap));
      this.sideLeft = width - PAD - this.options.sideWidth;
      this.width = width;
      this.rows = [];
      let y = panels > 1 ? 30 : 6;
      let stage = null;
      const present = new Map();
      for (const layer of this.layers) if (this.visible(layer)) present.set(layer.stage, (present.get(layer.stage) || 0) + layer.units);
      const stages = new Set(this.layers.map((l) => l.stage)).size;
      this.heads = [];
      for (const layer of this.layers) {
        if (!this.visible(layer)) continue;
        if (layer.stage !== stage) {
          stage = layer.stage;
          if (stages > 1) {
            y += 4;
            this.heads.push({ stage, y, units: present.get(stage) });
            y += STAGE;
          }
        }
        if (!this.unfolded(layer)) continue;
        const lines = Math.ceil(layer.units / this.columns);
        const least = this.options.rowHeight;
        const height = Math.max(lines * this.pitchY, least);
        this.rows.push({ layer, y, lines, height, top: y + (lines * this.pitchY < least ? Math.floor((least - lines * this.pitchY) / 2) : 0) });
        y += height + this.options.rowGap;
      }
      this.height = y + 16;
      this.host.style.height = (this.options.fit ? this.height : Math.max(this.height, this.view)) + "px";
      if (this.options.fit) this.view = Math.min(this.view, this.height);
      this.drawLabels();
      this.request();
    }

    drawLabels() {
      const parts = [];
      for (const head of this.heads) {
        const button = document.createElement("button");
        const folded = this.folded.has(head.stage);
        button.type = "button";
        button.className = "dv-grid-stage";
        button.style.top = head.y + "px";
        button.setAttribute("aria-expanded", String(!folded));
        button.textContent = (folded ? "▸ " : "▾ ") + head.stage;
        if (folded) {
          const note = document.createElement("span");
          note.className = "folded-note";
          const inside = this.layers.filter((l) => l.stage === head.stage && this.visible(l)).length;
          note.textContent = inside + (inside === 1 ? " layer, " : " layers, ") + dv.count(head.units) + " units";
          button.append(note);
        }
        button.addEventListener("click", (e) => {
          e.stopPropagation();
          this.fold(head.stage);
        });
        parts.push(button);
      }
      for (const row of this.rows) {
        const label = document.createElement("button");
        label.type = "button";
        label.className = "dv-grid-label" + (this.low() ? " low " : " ") + this.options.strong(row.layer) + (this.picked && this.picked.layer === row.layer.name ? " chosen" : "");
        label.style.top = row.y - 1 + "px";
        label.style.width = this.options.labelWidth - 10 + "px";
        label.dataset.layer = row.layer.name;
        label.title = row.layer.name + ", " + this.options.meta(row.layer);
        const name = document.createElement("b");
        name.textContent = shortName(row.layer);
        const meta = document.createElement("i");
        meta.textContent = this.options.meta(row.layer);
        label.append(name, ...(this.low() ? [] : [meta]));
        label.addEventListener("click", (e) => {
          e.stopPropagation();
          if (this.options.onPick) this.options.onPick(row.layer.name, null, 0);
        });
        parts.push(label);
        const inside = row.layer.kind === "block" ? this.layers.filter((l) => this.visible(l) && l.name.startsWith(row.layer.name + ".")).length : 0;
        if (inside) {
          const folded = this.folded.has(row.layer.name);
          const button = document.createElement("button");
          button.type = "button";
          button.className = "dv-grid-block";
          button.style.top = row.y - 1 + "px";
          button.textContent = folded ? "▸" : "▾";
          button.title = (folded ? "Show" : "Hide") + " the " + inside + (inside === 1 ? " layer" : " layers") + " inside this block";
          button.setAttribute("aria-label", button.title + ", " + row.layer.name);
          button.setAttribute("aria-expanded", String(!folded));
          button.addEventListener("click", (e) => {
            e.stopPropagation();
            this.fold(row.layer.name);
          });
          parts.push(button);
        }
        const side = this.side && this.side[row.layer.name];
        if (side) {
          const box = document.createElement("div");
          box.className = "dv-grid-side" + (this.low() ? " low" : "") + (side.faint ? " faint" : "");
          box.title = side.hint || "";
          box.style.cssText = `left:${this.sideLeft}px;top:${row.y + 2}px;width:${this.options.sideWidth}px`;
          const bar = document.createElement("div");
          bar.className = "dv-grid-side-bar";
          bar.style.width = Math.max(2, side.share * (this.options.sideWidth - (this.low() ? 34 : 0))) + "px";
          const text = document.createElement("span");
          text.className = "dv-small dv-num";
          text.textContent = side.text;
          box.append(bar, text);
          parts.push(box);
        }
      }
      if (this.panels.length > 1) {
        this.panels.forEach((panel, i) => {
          const head = document.createElement("div");
          head.className = "dv-grid-head";
          head.textContent = panel.title;
          head.title = panel.title;
          head.style.cssText = `left:${this.panelLeft[i]}px;top:4px;width:${this.columns * this.pitch}px`;
          parts.push(head);
        });
        if (this.side) {
          const head = document.createElement("div");
          head.className = "dv-grid-head";
          head.textContent = this.options.sideTitle || "";
          head.style.cssText = `left:${this.sideLeft}px;top:4px`;
          parts.push(head);
        }
      }
      this.labels.replaceChildren(...parts);
    }

    request(colours) {
      if (colours) this.tables = null;
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        if (this.alive()) this.paint();
      });
    }

    // Colours as the style sheet has them now: as text for SVG, as 32-bit pixels for the canvas.
    palette() {
      if (this.tables) return this.tables;
      const word = (colour) => {
        const [r, g, b] = colour[0] === "#" ? parse(colour) : colour.match(/\d+/g).map(Number);
        return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; // every browser's machine is little-endian
      };
      const tables = { sequential: dv.colours("sequential"), diverging: dv.colours("diverging"), soft: dv.colour("soft"), ink: dv.colour("ink"), muted: dv.colour("muted") };
      tables.marks = { 1: tables.ink, 2: dv.colour("ok"), 3: dv.colour("warn") };
      tables.words = { soft: word(tables.soft), marks: Object.fromEntries(Object.entries(tables.marks).map(([kind, colour]) => [kind, word(colour)])) };
      for (const map of ["sequential", "diverging"]) tables.words[map] = Uint32Array.from(tables[map], word);
      for (const map of ["sequential", "diverging"]) tables.words[map][EMPTY] = tables.words.soft;
      return (this.tables = tables);
    }

    // Draw what is in the window now. Cells are written as pixels: as rectangles, thousands of them cost ten times as
    // much, and playback draws them thirty times a second.
    paint() {
      const ratio = window.devicePixelRatio || 1;
      const canvas = this.canvas;
      const wide = Math.round(this.width * ratio);
      const tall = Math.round(this.view * ratio);
      if (wide < 1 || tall < 1) return;
      if (canvas.width !== wide || canvas.height !== tall) {
        canvas.width = wide;
        canvas.height = tall;
        canvas.style.width = this.width + "px";
        canvas.style.height = this.view + "px";
      }
      const top = canvas.getBoundingClientRect().top - this.host.getBoundingClientRect().top;
      const context = canvas.getContext("2d");
      if (!this.image || this.image.width !== wide || this.image.height !== tall) this.image = context.createImageData(wide, tall);
      const pixels = new Uint32Array(this.image.data.buffer);
      pixels.fill(0);
      const tables = this.palette();
      const size = this.cellSize();
      let drawn = 0;
      for (const row of this.rows) {
        if (row.y + row.height < top || row.y > top + this.view) continue;
        this.panels.forEach((panel, p) => this.paintRow(pixels, wide, tall, ratio, top, row, panel, this.panelLeft[p], size));
        drawn += row.layer.units * this.panels.length;
      }
      context.putImageData(this.image, 0, 0);
      this.drawn = drawn; // cells in this frame
      this.paintedAt = performance.now();
      context.setTransform(ratio, 0, 0, ratio, 0, -top * ratio);
      const outline = (cell, colour, width) => {
        const box = cell && this.box(cell.layer, cell.unit);
        if (!box) return;
        context.strokeStyle = colour;
        context.lineWidth = width;
        this.panels.forEach((_, p) => context.strokeRect(this.panelLeft[p] + box.x - 1, box.y - 1, size + 2, this.tall(size) + 2));
      };
      if (this.chosen) {
        context.strokeStyle = tables.ink;
        context.lineWidth = this.pitch > 9 ? 2 : 1;
        for (const row of this.rows) {
          if (row.y + row.height < top || row.y > top + this.view) continue;
          this.each(row, (x, y, at) => this.chosen[at] && context.strokeRect(x, y, size, this.tall(size)));
        }
      }
      outline(this.hovered, tables.muted, 1);
      outline(this.picked && this.picked.unit !== null ? this.picked : null, tables.ink, 2);
    }

    // Calls visit(x, y, global number) for every cell of a row, in every panel.
    each(row, visit) {
      for (const left of this.panelLeft) {
        for (let i = 0; i < row.layer.units; i++) {
          const at = this.order ? this.order[row.layer.offset + i] : row.layer.offset + i;
          visit(left + (i % this.columns) * this.pitch, row.top + Math.floor(i / this.columns) * this.pitchY, at);
        }
      }
    }

    cellSize() {
      return this.pitch - (this.pitch > 7 ? 1 : this.pitch > 4 ? 0.5 : 0);
    }

    // The cells of a layer, line by line: the first row of pixels of a line is written, the others are copies of it.
    paintRow(pixels, wide, tall, ratio, top, row, panel, left, size) {
      const { words } = this.palette();
      const table = words[panel.map || "sequential"];
      const { offset, units } = row.layer;
      const { columns, pitch, pitchY, order } = this;
      for (let line = 0; line < row.lines; line++) {
        const upper = Math.round((row.top + line * pitchY - top) * ratio);
        const lower = Math.min(tall, Math.max(upper + 1, Math.round((row.top + line * pitchY + this.tall(size) - top) * ratio)));
        const first = Math.max(0, upper);
        if (first >= lower) continue;
        const count = Math.min(columns, units - line * columns);
        const base = first * wide;
        for (let column = 0; column < count; column++) {
          const at = offset + line * columns + column;
          const colour = table[panel.levels[order ? order[at] : at]];
          const x0 = Math.round((left + column * pitch) * ratio);
          const x1 = Math.min(wide, Math.max(x0 + 1, Math.round((left + column * pitch + size) * ratio)));
          for (let x = x0; x < x1; x++) pixels[base + x] = colour;
        }
        const from = base + Math.round(left * ratio);
        const to = Math.min(base + wide, base + Math.ceil((left + count * pitch) * ratio));
        for (let y = first + 1; y < lower; y++) pixels.copyWithin(y * wide + from - base, from, to);
        if (!panel.marks) continue;
        // A mark fills the upper right corner of its cell.
        const side = Math.round(Math.max(3, size * 0.5) * ratio);
        for (let column = 0; column < count; column++) {
          const at = offset + line * columns + column;
          const mark = panel.marks[order ? order[at] : at];
          if (!mark) continue;
          const right = Math.min(wide, Math.round((left + column * pitch + size) * ratio));
          for (let y = Math.max(0, upper); y < Math.min(tall, upper + side); y++) pixels.fill(words.marks[mark], y * wide + right - side + (y - upper), y * wide + right);
        }
      }
    }

    // Position of a unit inside its panel, or null where its layer is not shown.
    box(layer, unit) {
      const row = this.rows.find((r) => r.layer.name === layer);
      if (!row || unit === null || unit >= row.layer.units) return null;
      const at = this.order ? this.order.indexOf(row.layer.offset + unit, row.layer.offset) - row.layer.offset : unit;
      return { x: (at % this.columns) * this.pitch, y: row.top + Math.floor(at / this.columns) * this.pitchY, row, at };
    }

    hit(event) {
      if (event.target !== this.host && event.target !== this.canvas && event.target !== this.labels) return null;
      const frame = this.host.getBoundingClientRect();
      const x = event.clientX - frame.left;
      const y = event.clientY - frame.top;
      const row = this.rows.find((r) => y >= r.top && y < r.top + r.lines * this.pitchY);
      if (!row) return null;
      for (let p = 0; p < this.panels.length; p++) {
        const column = Math.floor((x - this.panelLeft[p]) / this.pitch);
        if (column < 0 || column >= this.columns) continue;
        const at = Math.floor((y - row.top) / this.pitchY) * this.columns + column;
        if (at >= row.layer.units) return null;
        const unit = this.order ? this.order[row.layer.offset + at] - row.layer.offset : at;
        return { layer: row.layer.name, unit, panel: p, row };
      }
      return null;
    }

    hover(event) {
      const hit = event && this.hit(event);
      const same = hit && this.hovered && hit.layer === this.hovered.layer && hit.unit === this.hovered.unit && hit.panel === this.hovered.panel;
      if (!hit) {
        this.tip.style.display = "none";
        this.host.style.cursor = "";
        if (this.hovered) {
          this.hovered = null;
          this.request();
        }
        return;
      }
      if (!same) {
        this.hovered = hit;
        this.tip.innerHTML = this.describe(hit);
        this.tip.style.display = "block";
        this.host.style.cursor = "pointer";
        this.request();
      }
      const wide = this.tip.offsetWidth;
      this.tip.style.left = Math.min(event.clientX + 14, window.innerWidth - wide - 8) + "px";
      this.tip.style.top = Math.min(event.clientY + 16, window.innerHeight - this.tip.offsetHeight - 8) + "px";
    }

    // Unit, value and rank of the cell under the pointer.
    describe(hit) {
      if (this.options.tip) return this.options.tip(hit.row.layer, hit.unit, hit.panel);
      const layer = hit.row.layer;
      const lines = this.panels.map((panel) => {
        const value = panel.values[layer.offset + hit.unit];
        let rank = 1;
        for (let u = layer.offset; u < layer.offset + layer.units; u++) if (panel.values[u] > value) rank++;
        return (this.panels.length > 1 ? dv.escape(panel.title) + ": " : "") + dv.number(value) + (panel.map === "diverging" ? "" : ", rank " + rank + " of " + layer.units);
      });
      return "<b>" + dv.escape(layer.name) + " · unit " + hit.unit + "</b><br>" + lines.join("<br>");
    }

    pick(layer, unit, panel) {
      this.set({ picked: { layer, unit } });
      for (const label of this.labels.querySelectorAll(".dv-grid-label")) label.classList.toggle("chosen", label.dataset.layer === layer);
      if (this.options.onPick) this.options.onPick(layer, unit, panel || 0);
    }

    key(event) {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
      if (!(event.key in steps) || !this.picked || this.picked.unit === null || event.target !== this.host) return;
      const box = this.box(this.picked.layer, this.picked.unit);
      if (!box) return;
      let row = box.row;
      let at = box.at + steps[event.key];
      const index = this.rows.indexOf(row);
      if (at < 0 && index > 0) {
        row = this.rows[index - 1];
        at = row.layer.units - 1;
      } else if (at >= row.layer.units && index < this.rows.length - 1) {
        row = this.rows[index + 1];
        at = 0;
      }
      if (at >= 0 && at < row.layer.units) {
        const unit = this.order ? this.order[row.layer.offset + at] - row.layer.offset : at;
        this.pick(row.layer.name, unit, 0);
        this.reveal(row.layer.name);
      }
      event.preventDefault();
      event.stopPropagation();
    }

    // Scroll so that a layer is in the window; unfolds its stage.
    reveal(name) {
      const layer = this.layers.find((l) => l.name === name);
      if (!layer) return;
      if (!this.unfolded(layer)) {
        const next = new Set([...this.folded].filter((f) => f !== layer.stage && !layer.name.startsWith(f + ".")));
        this.set({ folded: next });
        if (this.options.onFold) this.options.onFold(next);
      }
      const row = this.rows.find((r) => r.layer.name === name);
      if (!row) return;
      const top = row.y + this.host.offsetTop;
      if (top < this.scroller.scrollTop + 50 || top + row.height > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = Math.max(0, top - 90);
    }

    // The whole grid (not only what is in the window) as SVG.
    svg() {
      const tables = this.palette();
      const size = this.cellSize();
      const out = [];
      const { ink, muted } = tables;
      const text = (x, y, content, colour, fontSize, bold) =>
        out.push(`<text x="${x}" y="${y}" font-size="${fontSize}" fill="${colour}"${bold ? ' font-weight="600"' : ""}>${dv.escape(content)}</text>`);
      const pen = this.canvas.getContext("2d");
      // The longest tail (of a path) or head (of a sentence) that fits.
      const fit = (content, pixels, fontSize, tail) => {
        pen.font = fontSize + "px Liberation Sans, Arial, Helvetica, sans-serif";
        let kept = content;
        const shortened = () => (kept === content ? content : tail ? "…" + kept : kept + "…");
        while (kept.length > 1 && pen.measureText(shortened()).width > pixels) kept = tail ? kept.slice(1) : kept.slice(0, -1);
        return shortened();
      };
      for (const head of this.heads) {
        text(PAD, head.y + 13, head.stage, muted, 12.5, true);
        out.push(`<line x1="${PAD + 12 + head.stage.length * 7.4}" x2="${this.width - PAD}" y1="${head.y + 9}" y2="${head.y + 9}" stroke="${dv.colour("line")}"/>`);
      }
      if (this.panels.length > 1) this.panels.forEach((panel, p) => text(this.panelLeft[p], 16, panel.title, ink, 13, true));
      if (this.side && this.panels.length > 1) text(this.sideLeft, 16, this.options.sideTitle || "", ink, 13, true);
      for (const row of this.rows) {
        const low = this.low();
        text(PAD, row.y + 11, fit(shortName(row.layer), this.options.labelWidth - 8, low ? 12 : 13, true), ink, low ? 12 : 13, Boolean(this.options.strong(row.layer)));
        if (!low) text(PAD, row.y + 27, fit(this.options.meta(row.layer), this.options.labelWidth - 8, 12, false), muted, 12);
        const side = this.side && this.side[row.layer.name];
        if (side) {
          const long = Math.max(2, side.share * (this.options.sideWidth - (low ? 34 : 0)));
          out.push(`<rect x="${this.sideLeft}" y="${row.y + 3}" width="${long}" height="8" rx="2" fill="${muted}"/>`);
          text(low ? this.sideLeft + long + 6 : this.sideLeft, row.y + (low ? 11 : 25), side.text, muted, 12);
        }
      }
      // One path a colour keeps the file small; marks lie above all cells.
      const paths = new Map();
      const corners = [];
      for (const row of this.rows) {
        this.panels.forEach((panel, p) => {
          const table = tables[panel.map || "sequential"];
          const draw = (colour, piece) => (paths.has(colour) ? paths.get(colour).push(piece) : paths.set(colour, [piece]));
          for (let i = 0; i < row.layer.units; i++) {
            const at = this.order ? this.order[row.layer.offset + i] : row.layer.offset + i;
            const x = this.panelLeft[p] + (i % this.columns) * this.pitch;
            const y = row.top + Math.floor(i / this.columns) * this.pitchY;
            draw(panel.levels[at] === EMPTY ? tables.soft : table[panel.levels[at]], `M${x.toFixed(1)} ${y}h${size}v${this.tall(size)}h-${size}z`);
            const side = Math.max(3, size * 0.5);
            if (panel.marks && panel.marks[at]) corners.push(`<path fill="${tables.marks[panel.marks[at]]}" d="M${(x + size).toFixed(1)} ${y}h-${side}l${side} ${side}z"/>`);
          }
        });
      }
      for (const [colour, pieces] of paths) out.push(`<path fill="${colour}" d="${pieces.join("")}"/>`);
      out.push(...corners);
      const frames = [];
      if (this.chosen) for (const row of this.rows) this.each(row, (x, y, at) => this.chosen[at] && frames.push(`M${x.toFixed(1)} ${y}h${size}v${this.tall(size)}h-${size}z`));
      if (frames.length) out.push(`<path fill="none" stroke="${ink}" stroke-width="${this.pitch > 9 ? 2 : 1}" d="${frames.join("")}"/>`);
      return { svg: out.join(""), width: this.width, height: this.height };
    }
  };
})();
