// The view “Tampering” of the diagnosis page: which class is looked at, and the picture to be saved.
(function () {
  "use strict";
  const dv = window.dnnviz;

  document.addEventListener("click", (event) => {
    const row = event.target.closest("[data-tampering-class]");
    if (row) dv.set("suspect", row.dataset.tamperingClass);
  });

  const [NAME, CELL, LINE, PAD, SIDE] = [120, 150, 22, 16, 200];
  const image = (x, y, width, height, url) => `<image x="${x}" y="${y}" width="${width}" height="${height}" style="image-rendering:pixelated" preserveAspectRatio="none" href="${url}"/>`;
  const rect = (x, y, width, height, fill) => `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="${fill}"/>`;

  async function inlined(node) {
    const canvas = document.createElement("canvas");
    const source = new Image();
    source.src = node.src;
    await source.decode();
    [canvas.width, canvas.height] = [source.naturalWidth, source.naturalHeight];
    canvas.getContext("2d").drawImage(source, 0, 0);
    return canvas.toDataURL("image/png");
  }

  // A mark or a ring as the page has it, over an image at x, y.
  function marked(node, x, y, width, height) {
    if (!node) return "";
    const part = (name) => parseFloat(node.style[name]) / 100;
    const [left, top] = [x + part("left") * width, y + part("top") * height];
    const shape = node.matches(".ring") ? `circle cx="${left}" cy="${top}" r="7"` : `rect x="${left}" y="${top}" width="${part("width") * width}" height="${part("height") * height}"`;
    return `<${shape} fill="none" stroke="#e0a800" stroke-width="1.5"/>`;
  }

  function rows(words) {
    const parts = [];
    let y = PAD;
    for (const row of document.querySelectorAll("#tampering-cards .dv-tampering-row")) {
      y += LINE;
      const head = row.matches(".head");
      const [name, ...cells] = row.children;
      const look = head ? { fill: dv.colour("muted") } : row.matches(".marked") ? { fill: dv.colour("accent"), bold: true } : {};
      parts.push(words(PAD, y, name.textContent, { ...look, room: 18 }));
      cells.forEach((cell, i) => {
        const [left, room] = [PAD + NAME + i * CELL, CELL - 60];
        if (head) return parts.push(words(left, y, cell.textContent, { ...look, room: 24 }));
        const share = (selector, property) => (room * parseFloat(cell.querySelector(selector).style[property])) / 100;
        const bar = cell.querySelector(".bar");
        parts.push(rect(left, y - 10, share(".null", "width"), 12, dv.colour("soft")), rect(left, y - 7, share(".bar", "width"), 6, dv.colour(bar.matches(".strong") ? "accent" : "bar")));
        parts.push(rect(left + share(".limit", "left"), y - 10, 1, 12, dv.colour("muted")), words(left + room + 44, y, cell.querySelector(".value").textContent, { end: true }));
      });
    }
    return [parts, y + PAD, PAD + NAME + (document.querySelectorAll(".dv-tampering-row.head > *").length - 1) * CELL];
  }

  async function draw() {
    const { words } = dv.attribution;
    const evidence = document.getElementById("tampering-evidence");
    if (!evidence) throw new Error("There is nothing tested here that could be saved.");
    const [parts, below, across] = rows(words);
    let y = below + 14;
    const title = evidence.querySelector(".dv-title").textContent;
    parts.push(words(PAD, y, title, { size: 14, bold: true }));
    y += 12;
    const picture = evidence.querySelector(".dv-tampering-picture");
    let left = PAD;
    if (picture) {
      const tall = (SIDE * picture.clientHeight) / picture.clientWidth;
      parts.push(rect(PAD, y, SIDE, tall, dv.colour("div-mid")), image(PAD, y, SIDE, tall, await inlined(picture.querySelector("img"))), marked(picture.querySelector(".spot"), PAD, y, SIDE, tall));
      left += SIDE + 20;
    }
    let down = y;
    for (const group of evidence.querySelectorAll(".dv-section")) {
      const thumbs = [...group.querySelectorAll(".dv-thumb")].slice(0, Math.max(4, Math.floor((across - left) / 50)));
      if (!thumbs.length) continue;
      parts.push(words(left, down + 10, group.querySelector(".dv-section-title").textContent, { fill: dv.colour("muted") }));
      const urls = await Promise.all(thumbs.map((thumb) => inlined(thumb.querySelector("img"))));
      urls.forEach((url, i) => parts.push(image(left + 50 * i, down + 16, 46, 46, url), marked(thumbs[i].querySelector(".ring"), left + 50 * i, down + 16, 46, 46)));
      down += 74;
    }
    const said = document.querySelector(".dv-tampering-summary p").textContent;
    const caption = `${dv.selection.run}, epoch ${dv.selection.epoch}. ${said} Bars: robust deviations of a class from the typical one in each test; the line: from here on a class stands out.`;
    return { svg: parts.join(""), width: Math.max(across, left + 220) + PAD, height: Math.max(down, picture ? y + SIDE : y) + PAD, caption };
  }

  // Files load in the order of their names: the page's own is there before this one.
  dv.diagnosis.pictures.tampering = draw;
})();
