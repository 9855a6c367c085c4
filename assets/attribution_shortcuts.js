// The view “Shortcuts” of the attribution page: asks for the computation, tells the server when it has ended, draws the cards to be saved.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = dv.attribution;
  const none = () => window.dash_clientside.no_update;
  let nonce = null;

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-shortcuts-request]");
    if (!button) return;
    nonce = Date.now() + "-" + Math.random().toString(36).slice(2);
    button.disabled = true;
    button.textContent = "Computing…";
    window.dash_clientside.set_props("job-request", { data: { ...JSON.parse(button.dataset.shortcutsRequest), nonce: nonce } });
  });

  // -- the picture --------------------------------------------------------------------------------------------------
  const [CARD, MEAN, GROUP, THUMB, PAD] = [440, 112, 56, 34, 14];
  const text = (node, name) => node.querySelector(name)?.textContent || "";
  const image = (x, y, side, url) => `<image x="${x}" y="${y}" width="${side}" height="${side}" style="image-rendering:pixelated" preserveAspectRatio="none" href="${url}"/>`;

  // A thumbnail as the card shows it, cut from the sprite of all inputs or an image by itself.
  async function thumbnail(node) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 64;
    const source = new Image();
    const style = getComputedStyle(node);
    source.src = node.src || style.backgroundImage.slice(5, -2);
    await source.decode();
    let [x, y, side] = [0, 0, source.naturalWidth];
    if (!node.src) {
      const scale = source.naturalWidth / parseFloat(style.backgroundSize);
      [x, y] = style.backgroundPosition.split(" ").map((place) => -parseFloat(place) * scale);
      side = node.clientWidth * scale;
    }
    canvas.getContext("2d").drawImage(source, x, y, side, side, 0, 0, 64, 64);
    return canvas.toDataURL("image/png");
  }

  // [SVG of a card at the origin, its height].
  async function drawn(card) {
    const { words } = page;
    const [muted, accent, inner] = [dv.colour("muted"), dv.colour("accent"), CARD - PAD];
    const name = text(card, "h2");
    const parts = [words(PAD, 24, name, { size: 15, bold: true, room: 26 }), words(inner, 24, text(card, ".dv-shortcuts-mark") || text(card, ".dv-small"), { fill: card.matches(".marked") ? accent : muted, end: true })];
    const mean = card.querySelector(".dv-shortcuts-map.mean");
    let y = 40;
    if (mean) {
      parts.push(image(PAD, y, MEAN, mean.src));
      const cells = [...card.querySelectorAll(".dv-shortcuts-bars > *")];
      const [left, room] = [PAD + MEAN + 110, inner - PAD - MEAN - 150];
      for (let i = 0; i < cells.length; i += 3) {
        const line = y + 14 + (i / 3) * 22;
        const bar = cells[i + 1].querySelector(".bar");
        const strong = bar.matches(".strong");
        const look = { fill: strong ? accent : dv.colour("ink"), bold: strong };
        const even = left + (room * parseFloat(cells[i + 1].querySelector(".even").style.left)) / 100;
        parts.push(words(PAD + MEAN + 16, line, cells[i].textContent, look));
        parts.push(`<rect x="${left}" y="${line - 8}" width="${(room * parseFloat(bar.style.width)) / 100}" height="7" rx="2" fill="${strong ? accent : muted}"/>`);
        parts.push(`<line x1="${even}" x2="${even}" y1="${line - 11}" y2="${line + 2}" stroke="${dv.colour("ink")}"/>`);
        parts.push(words(inner, line, cells[i + 2].textContent, { ...look, end: true }));
      }
      y += MEAN + 18;
      parts.push(words(PAD, y, text(card, ".dv-shortcuts-groups"), { fill: muted }));
      y += 8;
    }
    for (const group of card.querySelectorAll(".dv-shortcuts-group")) {
      const picture = group.querySelector(".dv-shortcuts-map.group");
      if (picture) parts.push(image(PAD, y, GROUP, picture.src));
      const left = picture ? PAD + GROUP + 12 : PAD;
      parts.push(words(left, y + 12, text(group, ".dv-shortcuts-words > a")));
      const shown = [...group.querySelectorAll(".thumb, .dv-shortcuts-thumbs img")].slice(0, Math.floor((inner - left) / (THUMB + 4)));
      const urls = await Promise.all(shown.map(thumbnail));
      urls.forEach((url, i) => parts.push(image(left + i * (THUMB + 4), y + 20, THUMB, url)));
      y += GROUP + 10;
    }
    return [parts.join(""), y + 4];
  }

  page.pictures.shortcuts = async () => {
    const cards = [...document.querySelectorAll(".dv-shortcuts-card")];
    if (!cards.length) throw new Error("There are no shortcuts to save yet: look for them first.");
    const all = await Promise.all(cards.map(drawn));
    const across = Math.min(cards.length, cards.length > 8 ? 3 : 2);
    const parts = [];
    let y = PAD;
    for (let first = 0; first < all.length; first += across) {
      const row = all.slice(first, first + across);
      const tall = Math.max(...row.map(([, height]) => height));
      row.forEach(([svg], i) => {
        const edge = dv.colour(cards[first + i].matches(".marked") ? "accent" : "line");
        parts.push(`<g transform="translate(${PAD + i * (CARD + PAD)} ${y})"><rect width="${CARD}" height="${tall}" rx="8" fill="${dv.colour("panel")}" stroke="${edge}"/>${svg}</g>`);
      });
      y += tall + PAD;
    }
    const said = [...document.querySelectorAll(".dv-shortcuts-summary p")].map((p) => p.textContent);
    const caption = `${dv.selection.run}, epoch ${dv.selection.epoch}. ${said[0]} ${said[1]}: mean map of each class, evidence relative to the area (the line stands at an even spread), groups of maps alike.`;
    return { svg: parts.join(""), width: PAD + across * (CARD + PAD), height: y, caption };
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_shortcuts: {
      answer: function (result) {
        if (result && result.kind === "shortcuts" && nonce && result.nonce === nonce && document.getElementById("shortcuts-cards")) {
          nonce = null;
          window.dash_clientside.set_props("shortcuts-heard", { data: result });
        }
        return none();
      },
    },
  });
})();
