// One tile of the attribution page, large: values under the pointer, what is known of the map, how far to believe it.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.attribution;
  const { state, element, button, share } = page;
  let shown = ""; // what the dialog shows, so that news of other tiles leave it alone

  page.enlarge = async function (r, c) {
    const gallery = state.gallery;
    const dialog = document.getElementById("attribution-dialog");
    const [row, column, tile] = [gallery.rows[r], gallery.columns[c], gallery.tiles[r] && gallery.tiles[r][c]];
    if (!tile || !column || !page.complete(tile.about)) return;
    state.open = [r, c];
    const how = page.look(state.selection);
    const wanted = JSON.stringify([r, c, tile, how]);
    if (dialog.open && shown === wanted) return;
    shown = wanted;
    const [height, width] = gallery.size;
    const [map, input] = await Promise.all([dv.fetchFloats(page.mapUrl(tile)), page.picture(row.picture, height, width)]);
    if (shown !== wanted) return;
    const small = Math.min(height, width) < 100 ? "small" : "";
    const canvas = element("canvas", small);
    page.paint(canvas, input, map, tile.key, column, how);
    const plain = element("canvas", "dv-plain " + small);
    Object.assign(plain, { width, height });
    plain.getContext("2d").drawImage(input, 0, 0);
    const value = element("div", "dv-tile-value dv-num", "Point at the map to read its values.");
    value.id = "attribution-value";
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const x = Math.min(width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * width)));
      const y = Math.min(height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * height)));
      const top = page.strongest(tile.key, map.data, how);
      const found = map.data[y * width + x];
      value.textContent = `x ${x}, y ${y}: ${dv.number(found)}` + (top > 0 ? ` (${Math.round((100 * found) / top)} % of the strongest colour)` : "");
    });
    const close = button("Close", "dv-btn", () => dialog.close());
    const { about } = tile;
    const believe = page.trust(gallery, row, column, about, input);
    const side = element(
      "div",
      "dv-tile-side",
      element("h2", "dv-title", column.title),
      element("div", "dv-note", row.name + (row.truth === null ? "" : ", true class " + row.truth)),
      element("div", "dv-trust", element("i", "dv-dot " + about.note.state), about.note.text),
      element("p", "dv-small", about.note.why || ""),
      value,
      facts(about, column, map),
      believe.words,
      element("h3", "dv-section-title", "The input"),
      plain,
      element("p", "dv-note", column.summary),
      element("p", "dv-small", column.citation + "."),
      element("div", "dv-actions", button("Save PNG", "dv-btn", () => saveTile(canvas, row, column)), close),
    );
    dialog.replaceChildren(element("div", "dv-tile-maps", canvas, believe.stages), side);
    if (!dialog.open) dialog.showModal();
  };

  function facts(about, column, map) {
    const [low, high] = range(map.data);
    const pairs = [
      ["Explained", `${about.target} (score ${dv.number(about.score)}${about.probability === null ? "" : ", probability " + share(about.probability)})`],
      ["Range", `${dv.number(low)} to ${dv.number(high)}`],
      ...(about.layer ? [["Layer", about.layer]] : []),
      ...(column.settings ? [["Settings", column.settings]] : []),
      ["Evaluations", dv.count(column.passes)],
      ["Time", about.seconds < 0.01 ? "under 0.01 s" : about.seconds.toFixed(2) + " s"],
    ];
    return element("dl", "dv-facts", ...pairs.flatMap(([name, text]) => [element("dt", "", name), element("dd", "", text)]));
  }

  function range(data) {
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

  document.addEventListener("click", (event) => {
    if (!page.here()) return;
    const tile = event.target.closest("[data-dv-tile]");
    if (tile) page.enlarge(...tile.dataset.dvTile.split(",").map(Number));
    else if (event.target.id === "attribution-dialog") event.target.close();
  });
  document.addEventListener(
    "close",
    (event) => {
      if (event.target.id === "attribution-dialog") state.open = null;
    },
    true,
  );
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !state.open || !page.here()) return;
    event.preventDefault();
    page.enlarge(state.open[0] + step[0], state.open[1] + step[1]);
  });
})();
