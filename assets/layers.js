// The layers page: fetches values of all units and hands them to the grid.
(function () {
  "use strict";
  const dv = window.dnnviz;
  let grid = null;
  let order = 0; // number of the latest request: an answer that comes late is dropped
  const state = { description: null, values: null };

  async function draw(selection, run) {
    const mine = ++order;
    const [epoch, show, stat, split] = [selection.epoch, selection.show, selection.stat, selection.split];
    const description = await dv.fetchJson(dv.dataUrl(run, "layers.json"));
    const wanted = [at(run, description, epoch, { show, stat, split })];
    wanted.push(selection.scale === "epochs" ? dv.fetchFloats(dv.dataUrl(run, "range", { show, stat, split })) : null);
    wanted.push(selection.order === "selectivity" ? dv.fetchFloats(dv.dataUrl(run, "values", { epoch, show, stat: "selectivity", split })) : null);
    const [values, range, selectivity] = await Promise.all(wanted);
    const host = document.getElementById("layers-grid");
    if (mine !== order || !host) return;
    const layers = description.layers;
    const dead = description.dead[description.epochs.indexOf(Number(epoch))] || [];
    if (!grid || grid.host !== host) {
      grid = new dv.Grid(host, {
        onPick: (layer, unit) => dv.choose(layer, unit),
        onFold: (folded) => dv.set("fold", [...folded].join(",")),
        meta: (layer) => grid.notes.get(layer.name),
      });
    }
    grid.notes = new Map(layers.map((l, i) => [l.name, describe(l, dead[i])]));
    const ranges = dv.ranges(values.data, layers, selection.scale, range && range.data);
    const folded = new Set((selection.fold || "").split(",").filter(Boolean));
    const nothing = values.data.length && values.data.every(Number.isNaN) ? ": this run holds no inputs of it" : "";
    const panel = { title: title(description, selection) + nothing, values: values.data, levels: dv.levels(values.data, layers, ranges), map: "sequential" };
    grid.set({
      layers,
      kinds: new Set((selection.kinds || "").split(",")),
      folded,
      cell: Number(selection.cell) || 0,
      order: selection.order === "value" ? sorted(values.data, layers) : selectivity ? sorted(selectivity.data, layers) : null,
      panels: [panel],
      picked: selection.layer ? { layer: selection.layer, unit: selection.unit === "" ? null : Number(selection.unit) } : null,
    });
    state.description = description;
    document.getElementById("layers-title").textContent = panel.title;
    legend(selection, ranges);
    if (waiting) {
      const name = waiting;
      waiting = null;
      requestAnimationFrame(() => grid.reveal(name));
    }
  }

  // Values at one epoch. All epochs are fetched ahead once something is drawn, so that the slider asks the server nothing.
  const AHEAD = 24e6; // bytes
  const ahead = new Map(); // address of all epochs → their values
  async function at(run, description, epoch, what) {
    const address = dv.dataUrl(run, "epochs", what);
    const units = description.units;
    const position = description.epochs.indexOf(Number(epoch));
    const all = ahead.get(address);
    if (all) return { data: all.data.subarray(position * units, (position + 1) * units) };
    const values = await dv.fetchFloats(dv.dataUrl(run, "values", { epoch, ...what }));
    if (description.epochs.length > 1 && 4 * units * description.epochs.length <= AHEAD) {
      setTimeout(async () => {
        if (dv.dataUrl(dv.selection.run, "epochs", { show: dv.selection.show, stat: dv.selection.stat, split: dv.selection.split }) !== address) return;
        if (ahead.size > 20) ahead.delete(ahead.keys().next().value);
        ahead.set(address, await dv.fetchFloats(address));
      }, 400);
    }
    return values;
  }

  const describe = (layer, dead) => `${layer.kind}, ${dv.count(layer.units)} units` + (dead ? `, ${dead < 0.1 ? (100 * dead).toFixed(dead < 0.01 ? 1 : 0) : Math.round(100 * dead)} % dead` : "");

  function sorted(values, layers) {
    const result = new Uint32Array(values.length);
    for (const layer of layers) {
      const units = Array.from({ length: layer.units }, (_, i) => layer.offset + i);
      units.sort((a, b) => values[b] - values[a] || a - b);
      result.set(units, layer.offset);
    }
    return result;
  }

  function title(description, selection) {
    const [kind, index] = selection.show.split(":");
    if (kind === "class") return "Class “" + description.classes[Number(index)] + "”";
    return kind === "input" ? "Input " + index : "All inputs";
  }

  function legend(selection, ranges) {
    const box = document.getElementById("layers-legend");
    const ends = {
      layer: "layer's maximum",
      epochs: "layer's maximum over all epochs",
      all: dv.number(Math.max(...ranges.map((r) => r[1]))),
      clip: "layer's 98th percentile",
    };
    const low = Math.min(...ranges.map((r) => r[0]));
    const ramp = document.createElement("span");
    ramp.className = "ramp";
    ramp.style.background = dv.gradient("sequential");
    box.replaceChildren(low < 0 ? "layer's minimum (0 or below)" : "0", ramp, ends[selection.scale] || ends.layer);
  }

  const VALUES = { mean: "its mean activation", max: "its largest activation", active: "the share of inputs on which it fires" };
  const SCALES = {
    layer: "Red is the layer's strongest unit, white is silent.",
    epochs: "Red is the layer's strongest unit at any epoch, so that epochs can be compared.",
    all: "One scale for all layers: pale layers are weak ones.",
    clip: "Red is the layer's 98th percentile or above, so that one loud unit does not hide the others.",
  };
  let waiting = null;

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_layers: {
      draw: function (selection) {
        if (!selection || !selection.run || selection.stat === undefined) return window.dash_clientside.no_update;
        document.querySelector(".dv-page").dataset.view = selection.view;
        if (selection.view !== "graph") draw(selection, selection.run).catch((error) => dv.toast(error.message));
        if (selection.view === "graph")
          return "Each box is a layer or block, arrows are the flow of data. The stronger the colour, the higher the chosen figure at this epoch.";
        const [kind] = selection.show.split(":");
        const over = kind === "data" ? "over all inputs" : kind === "class" ? "over the inputs of this class" : "for this input";
        return `Each cell is one unit: ${VALUES[selection.stat] || VALUES.mean}, ${over}. ${SCALES[selection.scale] || SCALES.layer}`;
      },
      fold: function () {
        const asked = window.dash_clientside.callback_context.triggered_id;
        if (asked === "unfold-all" || !state.description) return "";
        return [...new Set(state.description.layers.map((l) => l.stage))].join(",");
      },
      reveal: function (node) {
        if (!node || !node.layer) return window.dash_clientside.no_update;
        waiting = node.layer;
        dv.choose(node.layer, null);
        return "grid";
      },
    },
  });
  dv.picture.provide("/", async () => {
    const where = dv.selection;
    if (where.view === "graph") return graphPicture(where);
    if (!grid) throw new Error("Nothing is drawn yet.");
    const scale = { layer: "each layer on its own scale", epochs: "each layer, one scale for all epochs", all: "one scale for all layers", clip: "each layer, cut at the 98th percentile" };
    const caption = `${where.run}, epoch ${where.epoch}. ${grid.panels[0].title}: ${VALUES[where.stat] || VALUES.mean} of every unit; colour: ${scale[where.scale] || scale.layer}, from zero (light) to the maximum (dark).`;
    return Object.assign(grid.svg(), { caption });
  });
  async function graphPicture(where) {
    const host = document.getElementById("architecture");
    const cy = host && host._cyreg && host._cyreg.cy;
    const found = cy || (document.querySelector("#architecture ._cyreg") || {}).cy || window.cy;
    if (!found) throw new Error("The graph is not drawn yet.");
    const url = found.png({ full: true, scale: 2, bg: dv.colour("bg"), maxWidth: 8000, maxHeight: 8000 });
    const image = new Image();
    image.src = url;
    await image.decode();
    const [width, height] = [image.naturalWidth / 2, image.naturalHeight / 2];
    return { svg: `<image href="${url}" width="${width}" height="${height}"/>`, width, height, caption: `${where.run}, epoch ${where.epoch}. Architecture; colour: ${document.getElementById("graph-legend").textContent}` };
  }
  // For benchmarks: the grid that is on the page.
  dv.layersGrid = () => grid;
})();
