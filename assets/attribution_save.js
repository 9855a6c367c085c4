// What leaves the attribution page: the picture of the view, here the whole gallery, and the raw maps.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.attribution;
  const { state, share } = page;

  const [SIDE, GAP, LEFT, HEAD, FOOT, LINE] = [150, 8, 190, 30, 26, 17];

  // Lines beside a row: [text, number, whether bold].
  function lines(gallery, row, first) {
    const [name, probability, plain] = row.explained;
    const alone = gallery.rows.filter((other) => other.source === row.source).length === 1;
    const found = first ? [[row.name + (row.truth === null ? "" : ", true: " + row.truth), "", true]] : [];
    if (!alone || !plain) found.push(["Explained:", "", false], [name, plain ? share(probability) : "", true]);
    if (first) found.push(...row.top.map(([label, p, explained]) => [label, share(p), explained && alone]));
    if (first && alone && plain && row.top.length && !row.top.some((entry) => entry[2])) found.push([name, share(probability), true]);
    return found;
  }

  dv.picture.provide("/attribution", () => page.pictures[document.querySelector(".dv-page").dataset.view || "gallery"]());

  page.pictures.gallery = async () => {
    const { words } = page;
    const { gallery, selection, cells } = state;
    if (!page.here() || !cells.length) throw new Error("There is no gallery to save yet.");
    await page.fill(true);
    const tall = (SIDE * gallery.size[0]) / gallery.size[1];
    const muted = dv.colour("muted");
    const at = (c) => LEFT + 12 + (c + 1) * (SIDE + GAP);
    const parts = [words(LEFT + 12, 20, "Input", { size: 12, bold: true })];
    gallery.columns.forEach((column, c) => parts.push(words(at(c), 20, column.title, { size: 12, bold: true, room: 24 })));
    const crisp = Math.min(...gallery.size) < 100 ? ' style="image-rendering:pixelated"' : "";
    const image = (canvas, x, y) => `<image x="${x}" y="${y}" width="${SIDE}" height="${tall}"${crisp} preserveAspectRatio="none" href="${canvas.toDataURL("image/png")}"/>`;
    let y = HEAD;
    gallery.rows.forEach((row, r) => {
      const beside = lines(gallery, row, Boolean(cells[r].shown));
      beside.forEach(([text, number, strong], i) => {
        const look = strong ? { bold: true } : { fill: muted };
        parts.push(words(12, y + 13 + LINE * i, text, { ...look, room: number ? 22 : 30 }));
        if (number) parts.push(words(LEFT, y + 13 + LINE * i, number, { ...look, end: true }));
      });
      if (cells[r].shown) parts.push(image(cells[r].shown, LEFT + 12, y));
      gallery.columns.forEach((column, c) => {
        const { about } = gallery.tiles[r][c];
        if (!page.complete(about)) {
          parts.push(words(at(c), y + 14, about && about.error ? "not defined here" : "not computed", { size: 10.5, fill: muted }));
          return;
        }
        const { state: mark, text } = about.note;
        const colour = dv.colour({ good: "ok", warning: "warn", degenerate: "accent" }[mark]);
        const fill = mark === "degenerate" ? `fill="none" stroke="${colour}" stroke-width="1.6"` : `fill="${colour}"`;
        parts.push(image(cells[r].tiles[c].canvas, at(c), y), `<circle cx="${at(c) + 4}" cy="${y + tall + 11}" r="3.2" ${fill}/>`);
        parts.push(words(at(c) + 12, y + tall + 15, text, { size: 10.5, fill: muted, room: 27 }));
      });
      y += Math.max(tall, LINE * (beside.length - 1)) + FOOT;
    });
    const how = page.look(selection);
    const signs = { auto: "red speaks for it, blue against it, where a method is signed", absolute: "absolute values", positive: "evidence for it only" }[how.sign];
    const names = [...new Set(gallery.rows.map((row) => row.explained[0]))];
    const alike = { predicted: "the predicted class", true: "the true class" }[selection.target];
    const target = alike && selection.against === "none" && !selection.also ? alike : names.length <= 4 ? names.map((name) => "“" + name + "”").join(", ") : "the targets named at the left";
    return {
      svg: parts.join(""),
      width: at(gallery.columns.length) - GAP + 12,
      height: y,
      caption: `${gallery.run}, epoch ${gallery.epoch}. What the score of ${target} depends on; ${signs}. Each tile on its own scale, strongest colour at ${how.clip === 100 ? "its largest value" : "its " + how.clip + "th percentile"}.`,
    };
  };

  // -- raw maps -----------------------------------------------------------------------------------------------------
  async function maps() {
    const { gallery } = state;
    const response = await fetch(dv.dataUrl(gallery.run, "maps.npz", { request: JSON.stringify(gallery.request) }));
    if (!response.ok) throw new Error((await response.json()).error);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = ["dnnviz", gallery.run, "epoch" + gallery.epoch, "maps"].join("-") + ".npz";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    dv.toast("Saved " + link.download + ".");
  }
  document.addEventListener("click", (event) => {
    if (page.here() && event.target.closest("#attribution-maps")) maps().catch((error) => dv.toast(error.message));
  });
})();
