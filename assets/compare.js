// The compare page: two sides and their difference over all units, then one layer over all classes.
(function () {
  "use strict";
  const dv = window.dnnviz;
  let grid = null;
  let rows = null; // the small multiples: a grid whose layers are classes
  let many = null; // one layer over classes, runs and epochs: as `rows`, a panel a moment
  let order = 0; // number of the latest request: an answer that comes late is dropped
  const state = { units: null, classes: null };
  const SIDE = 66;
  const none = () => window.dash_clientside.no_update;

  function url(file, selection, more) {
    const search = new URLSearchParams();
    const keys = ["run", "epoch", "show", "split", "run2", "epoch2", "show2", "split2", "group", "group2", "pair", "rows", "layers", "measure"];
    for (const key of keys) if (selection[key]) search.set(key, selection[key]);
    for (const [key, value] of Object.entries(more || {})) search.set(key, value);
    return dv.prefix() + "compare-data/" + file + "?" + search.toString();
  }
  // Base64 of little-endian float32 → arrays of `size` values.
  function unpack(text, size) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const all = new Float32Array(bytes.buffer);
    return Array.from({ length: size ? all.length / size : 0 }, (_, i) => all.subarray(i * size, (i + 1) * size));
  }
  const deviations = (value) => (Number.isFinite(value) ? (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2) + " sd" : "no scale: the unit does not vary");

  async function draw(selection) {
    const mine = ++order;
    const answer = await dv.fetchJson(url("units.json", selection));
    const host = document.getElementById("compare-grid");
    if (mine !== order || !host) return;
    const [a, b, difference, partner] = unpack(answer.values, answer.units);
    const layers = answer.layers.map((layer) => (answer.layers.length > 18 ? layer : Object.assign({}, layer, { stage: "" })));
    if (!grid || grid.host !== host) {
      grid = new dv.Grid(host, {
        fit: true,
        sideWidth: SIDE,
        onPick: (layer, unit) => dv.choose(layer, unit),
        onFold: (folded) => dv.set("fold", [...folded].join(",")),
        meta: (layer) => (layer.kind === "block" ? "" : layer.kind + ", ") + dv.count(layer.units) + " units",
        tip: (layer, unit) => tip(layer, unit),
      });
    }
    const names = answer.titles;
    state.units = { answer, a, b, difference, partner, selection };
    const largest = answer.measure === "cka" ? 1 : Math.max(...layers.map((layer) => layer.distance || 0)) || 1;
    grid.options.sideTitle = answer.measure === "cka" ? "Similarity" : "Distance";
    const span = Number(selection.span) || 3;
    // One scale for both sides, so that a cell of A and a cell of B can be compared.
    const ranges = layers.map((layer) => {
      const own = [dv.ranges(a, [layer], "layer")[0], dv.ranges(b, [layer], "layer")[0]];
      return [Math.min(own[0][0], own[1][0]), Math.max(own[0][1], own[1][1])];
    });
    const marks = selection.mark === "1" ? marked(difference, layers) : null;
    const roomy = host.closest(".dv-centre").clientWidth > 1400 && answer.units < 1500;
    grid.set({
      layers,
      cell: roomy ? 16 : 0,
      folded: new Set((selection.fold || "").split(",").filter(Boolean)),
      side: Object.fromEntries(layers.map((layer) => [layer.name, { share: Math.max(0, (layer.distance || 0) / largest), text: layer.distance === null ? "–" : layer.distance.toFixed(2), ...chance(layer, answer) }])),
      panels: [
        { title: "A  " + names[0], values: a, levels: dv.levels(a, layers, ranges), map: "sequential", marks },
        { title: "B  " + names[1], values: b, levels: dv.levels(b, layers, ranges), map: "sequential", marks },
        { title: "B − A", values: difference, levels: dv.levels(difference, layers, layers.map(() => [-span, span])), map: "diverging", marks },
      ],
      picked: selection.layer ? { layer: selection.layer, unit: selection.unit === "" ? null : Number(selection.unit) } : null,
    });
    legend(span);
    await drawClasses(selection, answer, mine, span);
  }

  // What the permutation test says of a layer's distance; one that chance explains stands back.
  function chance(layer, answer) {
    if (answer.measure === "cka" || layer.p === null) return { hint: answer.measure === "cka" ? "" : answer.tested };
    return { faint: layer.p > 0.05, hint: `${layer.p > 0.05 ? "No more than chance explains" : "More than chance explains"}: p ${layer.p <= 0.001 ? "≤ 0.001" : "= " + layer.p.toFixed(3)} (permutation test, ${answer.tested}, adjusted for the number of layers)` };
  }

  // The units of some layers that differ most, strongest first: [layer, unit].
  function ranked(difference, layers, count) {
    const all = [];
    for (const layer of layers) for (let unit = 0; unit < layer.units; unit++) if (Math.abs(difference[layer.offset + unit]) > 0) all.push([layer, unit]);
    const size = ([layer, unit]) => Math.abs(difference[layer.offset + unit]);
    return all.sort((x, y) => size(y) - size(x)).slice(0, count);
  }
  // Those named at the right, marked in the grid.
  function marked(difference, layers) {
    const marks = new Uint8Array(difference.length);
    for (const [layer, unit] of ranked(difference, layers, 12)) marks[layer.offset + unit] = 1;
    return marks;
  }

  // -- the table ------------------------------------------------------------------------------------------------------
  async function drawTable(selection) {
    const mine = ++order;
    const answer = await dv.fetchJson(url("units.json", selection));
    const host = document.getElementById("compare-table");
    if (mine !== order || !host) return;
    const [a, b, difference, partner] = unpack(answer.values, answer.units);
    const shown = ranked(difference, answer.layers, 300);
    const total = answer.layers.reduce((sum, layer) => sum + layer.units, 0);
    const cells = (row, tag) => row.map((cell) => `<${tag}${tag === "th" ? ' scope="col"' : ""}>${cell}</${tag}>`).join("");
    const name = ([layer, unit]) => `<button type="button" class="cmp-link" data-dv-unit="${dv.escape(layer.name)}|${unit}">${dv.escape(layer.name)}</button>`;
    const other = (u) => (answer.matched ? [String(partner[u])] : []);
    const body = shown.map(([layer, unit], i) => {
      const u = layer.offset + unit;
      return `<tr>${cells([i + 1, name([layer, unit]), unit, ...other(u), dv.number(a[u]), dv.number(b[u]), deviations(difference[u]).replace(" sd", "")], "td")}</tr>`;
    });
    const head = cells(["", "Layer", "Unit", ...(answer.matched ? ["Unit of B"] : []), ...answer.titles.map((title, i) => "AB"[i] + ", " + dv.escape(title)), "B − A, standard deviations"], "th");
    const said = shown.length < 300 && shown.length < total ? `${shown.length} of ${dv.count(total)} units differ. Click one for its card.` : shown.length < total ? `The ${shown.length} units that differ most, of ${dv.count(total)}. Click one for its card.` : `All ${dv.count(total)} units.`;
    host.innerHTML =
      `<div class="cmp-table-head"><span class="dv-note">${said}</span><a class="dv-btn" href="${dv.escape(url("units.csv", selection))}" download>All ${dv.count(answer.units)} units as CSV</a></div>` +
      `<table class="cmp-table dv-num"><thead><tr>${head}</tr></thead><tbody>${body.join("")}</tbody></table>`;
  }

  function tip(layer, unit) {
    const { answer, a, b, difference, partner } = state.units;
    const u = layer.offset + unit;
    const other = answer.matched ? " (its unit " + partner[u] + ")" : "";
    return `<b>${dv.escape(layer.name)} · unit ${unit}</b><br>A: ${dv.number(a[u])}<br>B${other}: ${dv.number(b[u])}<br>B − A: ${deviations(difference[u])}`;
  }

  function legend(span) {
    const box = document.getElementById("compare-legend");
    const ramp = document.createElement("span");
    ramp.className = "ramp";
    ramp.style.background = dv.gradient("diverging");
    const text = (content) => Object.assign(document.createElement("span"), { textContent: content });
    box.replaceChildren(text("A"), ramp, text("B"), text(`± ${span} standard deviations`));
  }

  // -- one layer, all classes -----------------------------------------------------------------------------------------
  async function drawClasses(selection, answer, mine, span) {
    const host = document.getElementById("compare-classes");
    const title = document.getElementById("compare-classes-title");
    const note = document.getElementById("compare-classes-note");
    const name = selection.layer && answer.shared.includes(selection.layer) ? selection.layer : answer.telling;
    if (!name || !answer.classes) {
      rows = null;
      host.textContent = title.textContent = note.textContent = "";
      host.removeAttribute("style");
      return;
    }
    const panels = answer.one ? 1 : 3;
    const width = host.closest(".dv-centre").clientWidth;
    const room = (width - 44 - 152 - SIDE - 22 * (panels - 1)) / panels;
    const limit = Math.max(8, Math.floor((room - 12) / (panels === 1 ? 4 : 3.3)));
    const found = await dv.fetchJson(url("classes.json", selection, { layer: name, limit }));
    if (mine !== order || !document.contains(host)) return;
    const [shadeA, shadeB, difference, a, b] = unpack(found.values, found.classes.length * found.units.length);
    const count = found.units.length;
    const layers = found.classes.map((entry, i) => ({ name: entry.name, kind: "class", units: count, offset: i * count, stage: "", entry }));
    if (!rows || rows.host !== host) {
      rows = new dv.Grid(host, {
        fit: true,
        labelWidth: 152,
        sideWidth: SIDE,
        sideTitle: "Distance",
        rowHeight: 13,
        rowGap: 2,
        cellHeight: 13,
        strong: (layer) => (layer.entry.outlier ? "alarm" : layer.entry.chosen ? "strong" : ""),
        meta: (layer) => classMeta(layer.entry),
        onPick: (label, position) => {
          const entry = state.classes;
          if (position === null) dv.toast("The distance of class “" + label + "” in " + entry.found.layer + ": " + dv.number(entry.found.classes.find((c) => c.name === label).distance));
          else dv.choose(entry.found.layer, entry.found.units[position]);
        },
        tip: (layer, position) => classTip(layer, position),
      });
    }
    state.classes = { found, a, b, difference };
    rows.options.rowHeight = rows.options.cellHeight = width > 1400 ? 17 : 13;
    const full = [layers.map(() => [0, 1]), layers.map(() => [-span, span])];
    const pitch = Math.max(2.5, Math.min(width > 1400 ? 16 : 13, (room - 12) / count));
    const largest = Math.max(...found.classes.map((entry) => entry.distance || 0)) || 1;
    const side = Object.fromEntries(found.classes.map((entry) => [entry.name, { share: (entry.distance || 0) / largest, text: entry.distance === null ? "–" : entry.distance.toFixed(2) }]));
    const gap = found.rows === "gap";
    const look = gap ? { scale: full[1], map: "diverging" } : { scale: full[0], map: "sequential" };
    const one = { title: "", values: a, levels: dv.levels(shadeA, layers, look.scale), map: look.map };
    const three = [
      Object.assign({}, one, { title: "A  " + answer.networks[0] }),
      { title: "B  " + answer.networks[1], values: b, levels: dv.levels(shadeB, layers, look.scale), map: look.map },
      { title: "B − A", values: difference, levels: dv.levels(difference, layers, full[1]), map: "diverging" },
    ];
    rows.set({ layers, cell: pitch, line: count, side, panels: found.one ? [one] : three, picked: null });
    title.textContent = found.layer + (gap ? `, all classes: ${answer.splits[0]} − ${answer.splits[1]} images, in standard deviations` : ", all classes (each unit against its strongest class)");
    const some = [];
    if (found.classes.length < found.classesInAll) some.push(`${found.classes.length} of ${found.classesInAll} classes, those of the largest distance`);
    if (count < found.unitsInAll) some.push(`the ${count} of ${dv.count(found.unitsInAll)} units that tell most`);
    if (found.one) some.push(gap ? "distance: between the splits" : "distance: from the mean of all inputs");
    note.textContent = some.join("; ");
  }
  const answer = () => state.units.answer;
  const classMeta = (entry) => (entry.distance === null ? "" : "distance " + entry.distance.toFixed(2)) + (entry.outlier ? ", its training images lie far from the held-out ones" : "");

  function classTip(layer, position) {
    const { found, a, b, difference } = state.classes;
    const i = layer.offset + position;
    const head = `<b>${dv.escape(layer.name)}</b><br>${dv.escape(found.layer)} · unit ${found.units[position]}<br>`;
    const part = answer().splits;
    if (found.rows === "gap" && found.one) return head + `${part[0]} − ${part[1]}: ${deviations(a[i])}`;
    if (found.rows === "gap") return head + `${part[0]} − ${part[1]}<br>A: ${deviations(a[i])}<br>B: ${deviations(b[i])}`;
    if (found.one) return head + `mean ${dv.number(a[i])}<br>from the mean of all inputs: ${deviations(difference[i])}`;
    return head + `A: ${dv.number(a[i])}<br>B: ${dv.number(b[i])}<br>B − A: ${deviations(difference[i])}`;
  }

  // -- one layer, classes × runs and epochs ---------------------------------------------------------------------------
  async function drawMultiples(selection) {
    const mine = ++order;
    const answer = await dv.fetchJson(url("units.json", selection));
    const host = document.getElementById("compare-multiples");
    const title = document.getElementById("compare-multiples-title");
    if (mine !== order || !host) return;
    const name = selection.layer && answer.shared.includes(selection.layer) ? selection.layer : answer.telling;
    if (!name || !answer.classes) {
      many = null;
      host.replaceChildren();
      title.textContent = "The two runs have no class in common.";
      return;
    }
    const room = host.closest(".dv-centre").clientWidth - 44 - 152;
    const found = await dv.fetchJson(url("multiples.json", selection, { layer: name, limit: Math.max(6, Math.floor((room / 6 - 24) / 3.5)) }));
    if (mine !== order || !document.contains(host)) return;
    const [count, moments] = [found.units.length, found.titles.length];
    const all = unpack(found.values, found.classes.length * count);
    const layers = found.classes.map((entry, i) => ({ name: entry.name, kind: "class", units: count, offset: i * count, stage: "", entry }));
    if (!many || many.host !== host) {
      many = new dv.Grid(host, {
        fit: true,
        labelWidth: 152,
        rowHeight: 13,
        rowGap: 2,
        cellHeight: 13,
        strong: (layer) => (layer.entry.chosen ? "strong" : ""),
        meta: () => "",
        onPick: (label, position) => position !== null && dv.choose(state.multiples.found.layer, state.multiples.found.units[position]),
        tip: (layer, position) => multiplesTip(layer, position),
      });
    }
    state.multiples = { found, values: all.slice(moments) };
    // A few classes fill the window; many stay legible and scroll.
    many.options.rowHeight = many.options.cellHeight = Math.round(Math.max(room > 1250 ? 17 : 13, Math.min(34, (window.innerHeight - 320) / layers.length - 2)));
    const whole = layers.map(() => [0, 1]);
    const cell = Math.max(2.5, Math.min(13, (room - 22 * moments) / moments / count));
    const panels = found.titles.map((text, i) => ({ title: text, values: all[moments + i], levels: dv.levels(all[i], layers, whole), map: "sequential" }));
    many.set({ layers, cell, line: count, panels, picked: null });
    const part = count < found.unitsInAll ? `the ${count} of its ${found.unitsInAll} units that change most` : `its ${count} units`;
    state.multiples.said = `${part}, class by class over training; every unit against its strongest class at any of these moments.`;
    const choice = document.createElement("select");
    choice.className = "form-select";
    choice.setAttribute("aria-label", "Layer");
    choice.append(...answer.shared.map((each) => new Option(each, each, false, each === found.layer)));
    choice.addEventListener("change", () => dv.choose(choice.value, null));
    title.replaceChildren(choice, state.multiples.said);
  }
  function multiplesTip(layer, position) {
    const { found, values } = state.multiples;
    const each = found.titles.map((text, i) => `${dv.escape(text)}: ${dv.number(values[i][layer.offset + position])}`);
    return `<b>${dv.escape(layer.name)} · ${dv.escape(found.layer)} unit ${found.units[position]}</b><br>${each.join("<br>")}`;
  }

  // -- controls ---------------------------------------------------------------------------------------------------------
  // A click on a thumbnail sets what is shown of A; the select follows.
  function follow(selection) {
    for (const end of ["", "2"]) {
      const [kind, index] = (selection["show" + end] || "data").split(":");
      const choice = document.getElementById("compare-show" + end);
      const wanted = selection["group" + end] ? "group" : kind === "input" ? "input" : selection["show" + end];
      if (choice && choice.value !== wanted) window.dash_clientside.set_props("compare-show" + end, { value: wanted });
      const number = document.getElementById("compare-input" + end);
      if (kind === "input" && number && number.value !== index) window.dash_clientside.set_props("compare-input" + end, { value: Number(index) });
    }
  }
  const MOST = 200; // inputs of a group, which stand in the address; as in dnnviz.analysis.sides
  // "3, 17, 20-29" → "3,17,20,…,29"; null where it says no such thing or names inputs beyond the last.
  function numbers(text, last) {
    const found = new Set();
    for (const part of text.split(/[\s,;]+/).filter(Boolean)) {
      const match = /^(\d{1,9})(?:[-–](\d{1,9}))?$/.exec(part);
      if (!match) return null;
      const [from, to] = [Number(match[1]), Number(match[2] ?? match[1])];
      if (to < from || to > last || found.size + to - from >= MOST) return null;
      for (let i = from; i <= to; i++) found.add(i);
    }
    return [...found].sort((a, b) => a - b).join(",");
  }
  const address = (values) => {
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(values)) if (value !== "" && value !== undefined && value !== null) search.set(key, value);
    return window.location.pathname + "?" + search.toString().replace(/%3A/g, ":").replace(/%2C/g, ",");
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_compare: {
      draw: function (selection) {
        const page = document.querySelector(".cmp-page");
        if (!page || !selection || !selection.run2 || selection.span === undefined) return none();
        page.dataset.view = selection.view;
        follow(selection);
        if (selection.view === "units") draw(selection).catch((error) => dv.toast(error.message));
        else document.getElementById("compare-legend").replaceChildren();
        if (selection.view === "multiples") drawMultiples(selection).catch((error) => dv.toast(error.message));
        if (selection.view === "table") drawTable(selection).catch((error) => dv.toast(error.message));
        return none();
      },
      show: function (choice, number) {
        const asked = window.dash_clientside.callback_context.triggered_id;
        if (choice === "group") return none();
        // Something else is shown than inputs chosen one by one.
        if (asked === "compare-show" || asked === "compare-show2") dv.set("group" + asked.slice(12), "");
        if (choice !== "input") return choice || none();
        return number === undefined || number === null || number === "" ? none() : "input:" + Math.max(0, Math.floor(Number(number)));
      },
      // Inputs named one by one; an empty field shows what was shown before.
      several: function (text) {
        const end = window.dash_clientside.callback_context.triggered_id === "compare-several2" ? "2" : "";
        const last = Number(document.getElementById("compare-input" + end).max);
        const named = numbers(text || "", last);
        if (named === null) dv.toast(`Name up to ${MOST} inputs by their numbers from 0 to ${last}, such as 3, 17, 20-29.`);
        else if (named !== (dv.selection["group" + end] || "")) dv.set("group" + end, named);
        return none();
      },
      // Another run on either side, or the sides swapped: the page is laid out anew.
      go: function (run, run2) {
        const asked = window.dash_clientside.callback_context.triggered_id;
        const now = Object.assign({}, dv.selection);
        if (!asked || !now.run || !now.run2) return none();
        if (asked === "compare-swap") {
          for (const key of ["run", "epoch", "show", "split", "group"]) [now[key], now[key + "2"]] = [now[key + "2"], now[key]];
          dv.go(address(now));
          return none();
        }
        const end = asked === "compare-run2" ? "2" : "";
        const chosen = end ? run2 : run;
        if (!chosen || chosen === now["run" + end]) return none();
        dv.go(address(Object.assign(now, { ["run" + end]: chosen, ["epoch" + end]: "", ["show" + end]: now["show" + end].startsWith("input") ? "data" : now["show" + end], ["split" + end]: "", ["group" + end]: "", layer: "", unit: "" })));
        return none();
      },
    },
  });
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-cmp-action]");
    if (!target) return;
    if (target.dataset.cmpAction === "mark") dv.set("mark", dv.selection.mark === "1" ? "" : "1");
    if (target.dataset.cmpAction === "table") dv.set("view", "table");
  });

  dv.picture.provide("/compare", async () => {
    const where = dv.selection;
    const sides = ["", "2"].map((end) => `${where["run" + end]}, epoch ${where["epoch" + end]}, ${shownText(where, end)}${where["split" + end] === "all" ? "" : ", " + where["split" + end]}`);
    const of = `A: ${sides[0]}. B: ${sides[1]}. `;
    if (where.view === "similarity") return graphPicture("compare-similarity", of + "Similarity of every layer of A to every layer of B (linear CKA, unbiased): 1 the same arrangement of inputs, 0 nothing in common.");
    if (where.view === "predictions") return graphPicture("compare-moves", of + document.getElementById("compare-moves-note").textContent);
    if (where.view === "table") return tablePicture(of);
    if (where.view === "multiples") {
      if (!many || !state.multiples) throw new Error("Nothing is drawn yet.");
      return Object.assign(many.svg(), { caption: `${of}${state.multiples.found.layer}: ${state.multiples.said} Mean activations of the classes.` });
    }
    if (!grid || !state.units) throw new Error("Nothing is drawn yet.");
    const top = grid.svg();
    const pairs = state.units.answer.matched ? "Units of B paired with those of A by correlation. " : "";
    const caption = `${of}Mean activation of every unit, A and B on one scale for each layer; B − A in standard deviations of the unit over all inputs, ± ${where.span}; distance: their root mean square. ${pairs}`;
    if (!rows || !state.classes) return Object.assign(top, { caption });
    const below = rows.svg();
    const head = `<text x="22" y="${top.height + 14}" font-size="12.5" font-weight="600" fill="${dv.colour("muted")}">${dv.escape(document.getElementById("compare-classes-title").textContent)}</text>`;
    return {
      svg: top.svg + head + `<g transform="translate(0 ${top.height + 20})">${below.svg}</g>`,
      width: top.width,
      height: top.height + 20 + below.height,
      caption,
    };
  });
  function shownText(where, end) {
    const [kind, index] = where["show" + end].split(":");
    const choice = document.getElementById("compare-show" + end);
    if (where["group" + end]) return where["group" + end].split(",").length + " chosen inputs";
    return kind === "input" ? "input " + index : choice.selectedOptions[0].text.replace(/^Class: /, "class ").replace(/^All/, "all");
  }
  // The first rows of the table, as text.
  function tablePicture(of) {
    const lines = [...document.querySelectorAll("#compare-table tr")].slice(0, 51).map((row) => [...row.cells].map((cell) => cell.textContent));
    if (!lines.length) throw new Error("Nothing is drawn yet.");
    const widths = lines[0].map((_, i) => 24 + 6.6 * Math.max(...lines.map((line) => line[i].length)));
    const width = widths.reduce((sum, w) => sum + w, 24);
    const out = [];
    lines.forEach((line, i) => {
      let x = 12;
      line.forEach((cell, k) => {
        const left = k === 1;
        const at = left ? x + 12 : x + widths[k];
        out.push(`<text x="${at}" y="${24 + 20 * i}" font-size="12"${left ? "" : ' text-anchor="end"'} fill="${dv.colour(i ? "ink" : "muted")}"${i ? "" : ' font-weight="600"'}>${dv.escape(cell)}</text>`);
        x += widths[k];
      });
    });
    return { svg: out.join(""), width, height: 24 + 20 * lines.length, caption: `${of}The ${lines.length - 1} units that differ most. Mean activations; B − A in standard deviations of the unit over all inputs.` };
  }
  async function graphPicture(id, caption) {
    const graph = document.querySelector(`#${id} .js-plotly-plot`);
    if (!graph || !graph.data || !graph.data.length) throw new Error("Nothing is drawn yet.");
    const { width, height } = graph.getBoundingClientRect();
    const data = await window.Plotly.toImage(graph, { format: "svg", width, height });
    return { svg: decodeURIComponent(data.slice(data.indexOf(",") + 1)), width, height, caption };
  }
  // For tests and benchmarks: the grids that are on the page.
  dv.compareGrids = () => ({ units: grid, classes: rows, multiples: many });
})();
