// The attribution page: draws the gallery on canvases from the maps themselves, so that overlay, colours, signs and
// clipping change without the server; asks for what is missing; choosing, uploading and enlarging.
(function () {
  "use strict";
  const dv = window.dnnviz;
  // Evaluations × pixels up to which missing tiles are computed without asking: some seconds of a small network.
  const UNASKED = 12e6;
  const MOST_BYTES = 32 * 1024 * 1024;
  const SHOWN_TOP = 3;

  const state = { host: null, structure: "", cells: [], gallery: null, selection: null, asked: "", nonce: null, timer: 0, ended: null, progress: null, open: null, sentence: "" };
  const pictures = new Map(); // address → Promise of a canvas with the input
  const scales = new Map(); // key|mode|percentile → value of the strongest colour

  // -- colours ------------------------------------------------------------------------------------------------------
  const MAPS = {
    inferno: ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"],
    viridis: ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"],
    red: ["#2a0a0c", "#67000d", "#a50f15", "#cb181d", "#ef3b2c", "#fb6a4a", "#ff9a7a"],
    grey: ["#000000", "#ffffff"],
  };
  const FOR = [226, 35, 46];
  const AGAINST = [33, 118, 214];
  const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  const tables = {};
  function table(name) {
    if (!tables[name]) {
      const stops = (MAPS[name] || MAPS.inferno).map(hex);
      const made = new Uint8Array(256 * 3);
      for (let i = 0; i < 256; i++) {
        const at = (i / 255) * (stops.length - 1);
        const low = Math.min(Math.floor(at), stops.length - 2);
        for (let c = 0; c < 3; c++) made[3 * i + c] = Math.round(stops[low][c] + (stops[low + 1][c] - stops[low][c]) * (at - low));
      }
      tables[name] = made;
    }
    return tables[name];
  }
  const look = (selection) => ({ strength: Number(selection.overlay) / 100, colours: selection.colours, sign: selection.sign, clip: Number(selection.clip) });
  const isSigned = (column, how) => column.signed && how.sign === "auto";

  // Value that gets the strongest colour: a percentile of the map as it is shown.
  function strongest(key, data, how) {
    const name = key + "|" + (how.sign === "positive") + "|" + how.clip;
    if (!scales.has(name)) {
      const sorted = how.sign === "positive" ? data.map((v) => Math.max(v, 0)) : data.map(Math.abs);
      sorted.sort();
      // Where the percentile is zero (a map with few pixels that count), the largest value takes its place.
      const at = Math.min(sorted.length - 1, Math.floor((how.clip / 100) * sorted.length));
      scales.set(name, sorted[at] > 0 ? sorted[at] : sorted[sorted.length - 1]);
      if (scales.size > 2000) scales.delete(scales.keys().next().value);
    }
    return scales.get(name);
  }

  function picture(path, height, width) {
    const url = dv.prefix() + "data/" + path;
    if (!pictures.has(url)) {
      pictures.set(
        url,
        (async () => {
          const image = new Image();
          image.src = url;
          await image.decode();
          const canvas = document.createElement("canvas");
          canvas.width = width;
          canvas.height = height;
          canvas.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0, width, height);
          return canvas;
        })().catch((error) => {
          pictures.delete(url);
          throw error;
        }),
      );
      if (pictures.size > 200) pictures.delete(pictures.keys().next().value);
    }
    return pictures.get(url);
  }

  // A map over the grey picture.
  function paint(canvas, input, map, key, column, how) {
    const [height, width] = map.shape;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const pixels = input.getContext("2d").getImageData(0, 0, width, height);
    const out = pixels.data;
    const top = strongest(key, map.data, how);
    const signed = isSigned(column, how);
    const colours = table(how.colours);
    for (let i = 0; i < map.data.length; i++) {
      let grey = 0.299 * out[4 * i] + 0.587 * out[4 * i + 1] + 0.114 * out[4 * i + 2];
      const value = map.data[i];
      const size = top > 0 ? Math.min((how.sign === "positive" ? Math.max(value, 0) : Math.abs(value)) / top, 1) : 0;
      let alpha, red, green, blue;
      if (signed) {
        // A paler picture lets two colours stand out on black and on white.
        grey += (118 - grey) * 0.4 * how.strength;
        alpha = how.strength * Math.pow(size, 0.6);
        [red, green, blue] = value < 0 ? AGAINST : FOR;
      } else {
        // Also where the map is silent the picture steps back, so that what is bright stands out.
        alpha = top > 0 ? how.strength * (0.4 + 0.6 * Math.sqrt(size)) : 0;
        const level = 3 * Math.round(255 * size);
        red = colours[level];
        green = colours[level + 1];
        blue = colours[level + 2];
      }
      out[4 * i] = grey + (red - grey) * alpha;
      out[4 * i + 1] = grey + (green - grey) * alpha;
      out[4 * i + 2] = grey + (blue - grey) * alpha;
    }
    context.putImageData(pixels, 0, 0);
  }

  // -- the gallery --------------------------------------------------------------------------------------------------
  function element(tag, className, ...children) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children.filter((c) => c !== null && c !== undefined));
    return made;
  }
  const share = (p) => (p === null || p === undefined ? "" : p > 0 && p < 0.001 ? "<0.001" : p < 0.0995 ? p.toFixed(3) : p.toFixed(2));

  function rowText(row) {
    const box = element("div", "dv-row-text");
    const name = element("div", "dv-row-name", row.name);
    if (row.truth !== null) name.append(element("span", "dv-small", ", true: "), element("span", row.right ? "dv-right-class" : "dv-wrong-class", row.truth));
    const drop = element("button", "dv-row-drop", "×");
    drop.type = "button";
    drop.title = "Leave this input out";
    drop.setAttribute("aria-label", "Leave out " + row.name);
    drop.dataset.dvLeave = row.source;
    name.append(drop);
    box.append(name);
    const list = row.top.slice(0, SHOWN_TOP);
    if (row.explained && !list.some((entry) => entry[2])) list.push([row.explained[0], row.explained[1], true]);
    for (const [label, p, explained] of list) {
      const line = element("div", "dv-row-class" + (explained ? " explained" : ""), element("span", "name", label), element("span", "dv-num", share(p)));
      line.title = explained ? label + ": the class explained" : label;
      box.append(line);
    }
    if (!row.top.length) box.append(element("div", "dv-small", "its classes come with the first tile"));
    return box;
  }

  function build(gallery) {
    const host = state.host;
    const [height, width] = gallery.size;
    const grid = element("div", "dv-gallery" + (Math.min(height, width) < 100 ? " small" : ""));
    grid.style.setProperty("--dv-columns", gallery.columns.length + 1);
    grid.style.setProperty("--dv-ratio", width + " / " + height);
    grid.append(element("div", "dv-gallery-head"), element("div", "dv-gallery-head", "Input"));
    for (const column of gallery.columns) {
      const head = element("div", "dv-gallery-head", column.title);
      if (column.settings) head.append(element("span", "dv-small", " " + column.settings));
      head.title = column.summary + " " + column.citation + ".";
      grid.append(head);
    }
    state.cells = gallery.rows.map((row, r) => {
      const text = rowText(row);
      const shown = element("canvas", "dv-input");
      grid.append(text, element("div", "dv-cell", shown));
      const tiles = gallery.columns.map((column, c) => {
        const canvas = element("canvas");
        const button = element("button", "dv-tile waiting", canvas);
        button.type = "button";
        button.dataset.dvTile = r + "," + c;
        const mark = element("div", "dv-trust");
        grid.append(element("div", "dv-cell", button, mark));
        return { canvas, button, mark, drawn: "" };
      });
      return { text, shown, tiles };
    });
    host.replaceChildren(grid);
  }

  function structure(gallery) {
    return JSON.stringify([gallery.run, gallery.size, gallery.columns, gallery.rows]);
  }

  async function fill(gallery, selection) {
    const how = look(selection);
    const [height, width] = gallery.size;
    const cells = state.cells;
    await Promise.all(
      gallery.rows.map(async (row, r) => {
        let input;
        try {
          input = await picture(row.picture, height, width);
        } catch (_) {
          cells[r].text.append(element("div", "dv-small", "This image is no longer stored; upload it again."));
          return;
        }
        const shown = cells[r].shown;
        if (!shown.dataset.drawn) {
          shown.width = width;
          shown.height = height;
          shown.getContext("2d").drawImage(input, 0, 0);
          shown.dataset.drawn = "1";
        }
        await Promise.all(gallery.columns.map((column, c) => fillTile(cells[r].tiles[c], gallery.tiles[r][c], row, column, input, how)));
      }),
    );
  }

  async function fillTile(cell, tile, row, column, input, how) {
    const about = tile.about;
    const wanted = about ? tile.key + JSON.stringify(how) : "";
    if (cell.drawn === wanted && wanted) return;
    cell.button.disabled = !about || Boolean(about.error);
    if (!about || about.error) {
      cell.button.className = "dv-tile " + (about ? "failed" : state.nonce ? "waiting" : "absent");
      cell.button.setAttribute("aria-label", column.title + " of " + row.name + (about ? ": " + about.error : ": not computed yet"));
      cell.mark.replaceChildren();
      cell.button.querySelector("span")?.remove();
      if (about) cell.button.append(element("span", "dv-tile-text", about.error));
      cell.drawn = wanted;
      return;
    }
    const map = await dv.fetchFloats(dv.prefix() + "data/result/" + tile.key + "/heatmap");
    paint(cell.canvas, input, map, tile.key, column, how);
    cell.button.querySelector("span")?.remove();
    cell.button.className = "dv-tile";
    cell.button.setAttribute("aria-label", `${column.title} of ${row.name} for ${about.target}: ${about.note.text}`);
    cell.mark.replaceChildren(element("i", "dv-dot " + about.note.state), about.note.text);
    cell.mark.title = (about.note.why || about.note.text) + (about.layer ? " Layer: " + about.layer + "." : "");
    cell.drawn = wanted;
  }

  // Have the server look which tiles there are now.
  const hear = (what) => document.getElementById("attribution-tiles") && window.dash_clientside.set_props("attribution-heard", { data: what });

  // -- asking for what is missing -----------------------------------------------------------------------------------
  function send() {
    const gallery = state.gallery;
    if (!gallery || !gallery.request) return;
    state.nonce = Date.now() + "-" + Math.random().toString(36).slice(2);
    state.asked = JSON.stringify(gallery.request);
    state.ended = state.progress = null;
    window.dash_clientside.set_props("job-request", { data: { kind: "attribution", page: "/attribution", params: gallery.request, nonce: state.nonce } });
    fill(gallery, state.selection).catch((error) => dv.toast(error.message));
    report();
  }

  function consider(gallery) {
    clearTimeout(state.timer);
    if (!gallery.missing || gallery.problem || gallery.work.pixels > UNASKED || JSON.stringify(gallery.request) === state.asked) return;
    // A moment's patience: a slider that is dragged asks once.
    state.timer = setTimeout(send, 150);
  }

  function report() {
    const { gallery, progress } = state;
    const [title, status, run] = ["title", "status", "run"].map((name) => document.getElementById("attribution-" + name));
    if (!title || !gallery) return;
    const rows = gallery.rows.length;
    const total = rows * gallery.columns.length;
    const count = (n, one) => n + " " + one + (n === 1 ? "" : "s");
    title.textContent = total ? `${count(rows, "input")}, ${count(gallery.columns.length, "method")}` : "";
    const left = gallery.missing;
    let text = "";
    if (total && state.nonce && left) text = `${total - left} of ${total} tiles` + (progress && progress.nonce === state.nonce && progress.text ? ", " + progress.text : "");
    else if (total && left) {
      const cost = gallery.work.evaluations;
      text = `${left} of ${total} tiles to compute: ${dv.count(cost)} evaluations of the network`;
      if (state.ended && state.ended.cancelled) text = `Cancelled. ${text}`;
    } else if (total) {
      const seconds = gallery.tiles.flat().reduce((sum, tile) => sum + ((tile.about && tile.about.seconds) || 0), 0);
      text = `${total} tiles, ${seconds < 0.1 ? "under 0.1" : seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0)} s of computing`;
    }
    status.textContent = text;
    run.hidden = Boolean(state.nonce) || Boolean(gallery.problem) || !(left || gallery.failed);
    run.textContent = left ? "Run" : "Run again";
  }

  function legend(selection, gallery) {
    const box = document.getElementById("attribution-legend");
    const how = look(selection);
    const ramp = (css) => {
      const made = element("span", "ramp");
      made.style.background = css;
      return made;
    };
    const parts = [];
    const rgb = (c) => "rgb(" + c.join(",") + ")";
    if (gallery.columns.some((column) => isSigned(column, how))) parts.push("against", ramp(`linear-gradient(to right,${rgb(AGAINST)},#8a8a8a,${rgb(FOR)})`), "for");
    if (gallery.columns.some((column) => !isSigned(column, how))) parts.push(element("span", parts.length ? "ms-3" : "", "0"), ramp("linear-gradient(to right," + (MAPS[how.colours] || MAPS.inferno).join(",") + ")"), "strongest");
    box.replaceChildren(...parts);
    box.title = "Every tile has its own scale; the strongest colour stands at " + (how.clip === 100 ? "its largest value" : `the ${how.clip}th percentile of its values`);
  }

  function emptiness(gallery, selection) {
    const epoch = "epoch " + gallery.epoch;
    if (gallery.problem && !gallery.rows.length) return ["Nothing to explain", gallery.problem];
    if (!gallery.rows.length)
      return {
        wrong: ["No mistakes", `At ${epoch} the network is right on every input kept. Choose inputs by class, or an earlier epoch.`],
        chosen: ["No input chosen", "Click images in the strip below, add one by its number, or upload an image of your own."],
      }[selection.by] || ["No inputs", "This run keeps no input of this class. Choose another class."];
    if (!gallery.columns.length) return ["No method chosen", "Tick one or more methods at the left."];
    return null;
  }

  function alertBox(text) {
    const box = element("div", "alert alert-warning", text);
    box.setAttribute("role", "alert");
    return box;
  }

  function draw(gallery, selection) {
    const host = document.getElementById("attribution-tiles");
    if (!host || !gallery || !selection || selection.overlay === undefined || selection.run !== gallery.run) return window.dash_clientside.no_update;
    if (state.host !== host) Object.assign(state, { host, structure: "", asked: "", nonce: null, ended: null, sentence: "" });
    Object.assign(state, { gallery, selection });
    const page = document.querySelector(".dv-page");
    page.dataset.by = selection.by;
    page.dataset.target = selection.target;
    const nothing = emptiness(gallery, selection);
    const sentences = [gallery.rows.length ? gallery.problem : "", state.ended && state.ended.error, state.sentence].filter(Boolean);
    const now = structure(gallery) + JSON.stringify([nothing, sentences]);
    if (now !== state.structure) {
      state.structure = now;
      if (nothing) {
        host.replaceChildren(element("div", "dv-empty", element("h2", "", nothing[0]), element("p", "", nothing[1])));
        state.cells = [];
      } else build(gallery);
      host.prepend(...sentences.map(alertBox));
    }
    if (!nothing) fill(gallery, selection).catch((error) => dv.toast(error.message));
    legend(selection, nothing ? { columns: [] } : gallery);
    consider(gallery);
    report();
    mark();
    if (state.open) enlarge(...state.open);
    return String(gallery.missing);
  }

  // Inputs of the gallery are marked in the strip.
  function mark() {
    if (!document.getElementById("attribution-tiles") || !state.gallery) return;
    const shown = new Set(state.gallery.rows.map((row) => "input:" + row.source));
    document.querySelectorAll(".dv-strip [data-dv-show]").forEach((thumb) => thumb.classList.toggle("chosen", shown.has(thumb.dataset.dvShow)));
  }
  new MutationObserver(mark).observe(document.documentElement, { childList: true, subtree: true });

  // -- choosing -----------------------------------------------------------------------------------------------------
  const here = () => document.getElementById("attribution-tiles") && state.gallery;
  const sources = () => state.gallery.rows.map((row) => row.source);
  function choose(list) {
    dv.set("inputs", list.join(","));
    dv.set("by", "chosen");
  }
  const toggle = (source) => choose(sources().includes(source) ? sources().filter((s) => s !== source) : [...sources(), source]);
  function addNumber() {
    const field = document.getElementById("attribution-number");
    const number = Number(field.value);
    if (field.value === "" || !Number.isInteger(number) || number < 0 || number > Number(field.max)) return say(`Inputs have the numbers 0 to ${field.max}.`);
    if (!sources().includes(String(number))) toggle(String(number));
    return undefined;
  }
  function say(sentence) {
    state.sentence = sentence;
    draw(state.gallery, state.selection);
  }

  // The click of the strip means "show this input" elsewhere; here it adds the input or leaves it out.
  document.addEventListener(
    "click",
    (event) => {
      const thumb = event.target.closest(".dv-strip [data-dv-show]");
      if (!thumb || !here()) return;
      event.stopPropagation();
      toggle(thumb.dataset.dvShow.split(":")[1]);
    },
    true,
  );
  document.addEventListener("click", (event) => {
    if (!here()) return;
    const at = (selector) => event.target.closest(selector);
    if (at("#attribution-run")) send();
    else if (at("#attribution-add")) addNumber();
    else if (at("#attribution-upload")) browse();
    else if (at("[data-dv-leave]")) choose(sources().filter((s) => s !== at("[data-dv-leave]").dataset.dvLeave));
    else if (at("[data-dv-tile]")) enlarge(...at("[data-dv-tile]").dataset.dvTile.split(",").map(Number));
    else if (event.target.id === "attribution-dialog") event.target.close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.id === "attribution-number") addNumber();
  });

  // -- uploading ----------------------------------------------------------------------------------------------------
  function browse() {
    const chooser = document.createElement("input");
    chooser.type = "file";
    chooser.accept = "image/*";
    chooser.addEventListener("change", () => chooser.files.length && upload(chooser.files[0]));
    chooser.click();
  }
  async function upload(file) {
    if (file.size > MOST_BYTES) return say(`“${file.name}” has ${(file.size / 1024 / 1024).toFixed(0)} MB; images up to ${MOST_BYTES / 1024 / 1024} MB can be explained.`);
    let answer;
    try {
      const url = dv.dataUrl(state.gallery.run, "upload", { name: file.name.slice(-80) });
      answer = await (await fetch(url, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } })).json();
    } catch (_) {
      answer = { error: "The image could not be sent; is the app still running?" };
    }
    if (answer.error) return say(answer.error);
    state.sentence = "";
    const before = state.selection.by === "chosen" ? sources() : [];
    return choose([...before.filter((s) => s !== answer.key), answer.key]);
  }
  for (const name of ["dragover", "drop"])
    document.addEventListener(name, (event) => {
      if (!here() || !event.dataTransfer || ![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      if (name === "drop" && event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
    });

  // -- one tile, large ----------------------------------------------------------------------------------------------
  async function enlarge(r, c) {
    const gallery = state.gallery;
    const dialog = document.getElementById("attribution-dialog");
    const [row, column, tile] = [gallery.rows[r], gallery.columns[c], gallery.tiles[r] && gallery.tiles[r][c]];
    if (!tile || !tile.about || tile.about.error) return;
    state.open = [r, c];
    const [height, width] = gallery.size;
    const [map, input] = await Promise.all([dv.fetchFloats(dv.prefix() + "data/result/" + tile.key + "/heatmap"), picture(row.picture, height, width)]);
    const canvas = element("canvas", Math.min(height, width) < 100 ? "small" : "");
    paint(canvas, input, map, tile.key, column, look(state.selection));
    const plain = element("canvas", "dv-plain" + (Math.min(height, width) < 100 ? " small" : ""));
    plain.width = width;
    plain.height = height;
    plain.getContext("2d").drawImage(input, 0, 0);
    const about = tile.about;
    const value = element("div", "dv-tile-value dv-num", "Point at the map to read its values.");
    value.id = "attribution-value";
    const facts = [
      ["Explained", `${about.target} (score ${dv.number(about.score)}, probability ${share(about.probability)})`],
      ["Range", `${dv.number(Math.min(...minmax(map.data)))} to ${dv.number(Math.max(...minmax(map.data)))}`],
      ...(about.layer ? [["Layer", about.layer]] : []),
      ...(column.settings ? [["Settings", column.settings]] : []),
      ["Evaluations", dv.count(column.passes)],
      ["Time", about.seconds < 0.01 ? "under 0.01 s" : about.seconds.toFixed(2) + " s"],
    ];
    const list = element("dl", "dv-facts");
    for (const [name, text] of facts) list.append(element("dt", "", name), element("dd", "", text));
    const save = element("button", "dv-btn", "Save PNG");
    save.type = "button";
    save.addEventListener("click", () => saveTile(canvas, row, column));
    const close = element("button", "dv-btn", "Close");
    close.type = "button";
    close.dataset.dvAction = "close-dialog";
    const side = element(
      "div",
      "dv-tile-side",
      element("h2", "dv-title", column.title),
      element("div", "dv-note", row.name + (row.truth === null ? "" : ", true class " + row.truth)),
      element("div", "dv-trust", element("i", "dv-dot " + about.note.state), about.note.text),
      element("p", "dv-small", about.note.why || ""),
      value,
      list,
      plain,
      element("p", "dv-note", column.summary),
      element("p", "dv-small", column.citation + "."),
      element("div", "dv-actions", save, close),
    );
    const read = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = Math.min(width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * width)));
      const y = Math.min(height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * height)));
      const top = strongest(tile.key, map.data, look(state.selection));
      const found = map.data[y * width + x];
      value.textContent = `x ${x}, y ${y}: ${dv.number(found)}` + (top > 0 ? ` (${Math.round((100 * found) / top)} % of the strongest colour)` : "");
    };
    canvas.addEventListener("pointermove", read);
    dialog.replaceChildren(canvas, side);
    if (!dialog.open) dialog.showModal();
  }
  function minmax(data) {
    let [low, high] = [Infinity, -Infinity];
    for (const v of data) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
    return [low, high];
  }
  function saveTile(canvas, row, column) {
    // Enlarged by whole numbers, so that every pixel stays a square.
    const factor = Math.max(1, Math.round(768 / canvas.width));
    const large = document.createElement("canvas");
    large.width = canvas.width * factor;
    large.height = canvas.height * factor;
    const context = large.getContext("2d");
    context.imageSmoothingEnabled = canvas.width >= 100;
    context.drawImage(canvas, 0, 0, large.width, large.height);
    const link = document.createElement("a");
    link.href = large.toDataURL("image/png");
    link.download = ["dnnviz", state.gallery.run, "epoch" + state.gallery.epoch, row.name.replace(/\W+/g, "-").toLowerCase(), column.name].join("-") + ".png";
    link.click();
  }
  document.addEventListener("close", (event) => event.target.id === "attribution-dialog" && (state.open = null), true);
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !state.open || !here()) return;
    event.preventDefault();
    enlarge(state.open[0] + step[0], state.open[1] + step[1]);
  });

  // -- the picture that is saved ------------------------------------------------------------------------------------
  dv.picture.provide("/attribution", async () => {
    const { gallery, selection, cells } = state;
    if (!here() || !cells.length) throw new Error("There is no gallery to save yet.");
    await fill(gallery, selection);
    const [side, gap, left, head, foot] = [150, 8, 176, 30, 24];
    const tall = (side * gallery.size[0]) / gallery.size[1];
    const columns = gallery.columns.length + 1;
    const ink = dv.colour("ink");
    const muted = dv.colour("muted");
    const fit = (text, room) => dv.escape(text.length > room ? text.slice(0, room - 1) + "…" : text);
    const words = (x, y, text, size, fill, extra = "") => `<text x="${x}" y="${y}" font-size="${size}" fill="${fill}" ${extra}>${text}</text>`;
    const parts = [words(left + 12, 20, "Input", 12, ink, 'font-weight="600"')];
    gallery.columns.forEach((column, c) => parts.push(words(left + 12 + (c + 1) * (side + gap), 20, fit(column.title, 24), 12, ink, 'font-weight="600"')));
    const crisp = Math.min(...gallery.size) < 100 ? ' style="image-rendering:pixelated"' : "";
    const image = (canvas, x, y) => `<image x="${x}" y="${y}" width="${side}" height="${tall}"${crisp} preserveAspectRatio="none" href="${canvas.toDataURL("image/png")}"/>`;
    gallery.rows.forEach((row, r) => {
      const y = head + r * (tall + foot);
      parts.push(words(12, y + 13, fit(row.name + (row.truth === null ? "" : ", true: " + row.truth), 28), 12, ink, 'font-weight="600"'));
      const list = row.top.slice(0, SHOWN_TOP);
      if (row.explained && !list.some((entry) => entry[2])) list.push([row.explained[0], row.explained[1], true]);
      list.forEach(([label, p, explained], i) => {
        const weight = explained ? 'font-weight="600"' : "";
        parts.push(words(12, y + 33 + 17 * i, fit(label, 20), 11.5, explained ? ink : muted, weight));
        parts.push(words(left - 4, y + 33 + 17 * i, share(p).replace("<", "&lt;"), 11.5, explained ? ink : muted, weight + ' text-anchor="end"'));
      });
      parts.push(image(cells[r].shown, left + 12, y));
      gallery.columns.forEach((column, c) => {
        const about = gallery.tiles[r][c].about;
        const x = left + 12 + (c + 1) * (side + gap);
        if (about && !about.error) {
          const colour = { good: dv.colour("ok"), warning: dv.colour("warn"), degenerate: dv.colour("accent") }[about.note.state];
          parts.push(image(cells[r].tiles[c].canvas, x, y), `<circle cx="${x + 4}" cy="${y + tall + 11}" r="3.5" fill="${colour}"/>`);
          parts.push(words(x + 12, y + tall + 15, fit(about.note.text, 26), 10.5, muted));
        } else parts.push(words(x, y + 14, about ? "not defined here" : "not computed", 10.5, muted));
      });
    });
    const how = look(selection);
    const signs = { auto: "red speaks for the class, blue against it, where a method is signed", absolute: "absolute values", positive: "evidence for the class only" }[how.sign];
    const target = { predicted: "the predicted class", true: "the true class" }[selection.target] || "“" + gallery.rows[0].explained[0] + "”";
    return {
      svg: parts.join(""),
      width: left + 24 + columns * (side + gap) - gap,
      height: head + gallery.rows.length * (tall + foot),
      caption: `${gallery.run}, epoch ${gallery.epoch}. What the score of ${target} depends on; ${signs}. Each tile on its own scale, strongest colour at ${how.clip === 100 ? "its largest value" : "its " + how.clip + "th percentile"}.`,
    };
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_attribution: {
      draw,
      progress: function (progress) {
        if (progress && state.nonce && progress.nonce === state.nonce) {
          state.progress = progress;
          report();
          hear({ done: progress.done, of: progress.nonce });
        }
        return window.dash_clientside.no_update;
      },
      answer: function (result) {
        if (result && state.nonce && result.nonce === state.nonce) {
          Object.assign(state, { nonce: null, ended: result });
          hear({ ended: result.nonce });
        }
        return window.dash_clientside.no_update;
      },
      // Select and slider of the layer follow each other.
      depth: function (layer, place, options) {
        const names = (options || []).map((option) => option.value);
        const none = window.dash_clientside.no_update;
        const asked = window.dash_clientside.callback_context.triggered_id;
        if (asked === "attribution-depth") return [names[Number(place)] === layer ? none : names[Number(place)], none];
        return [none, names.indexOf(layer) === Number(place) ? none : names.indexOf(layer)];
      },
    },
  });
})();
