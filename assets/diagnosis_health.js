// The view “Health” of the diagnosis page: lets the network try other preprocessing, and saves the findings as a picture.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const none = () => window.dash_clientside.no_update;
  let nonce = null;
  let timer = 0;
  const asked = new Set(); // what was asked for by itself: once a visit

  function ask(button) {
    nonce = Date.now() + "-" + Math.random().toString(36).slice(2);
    button.disabled = true;
    button.textContent = "Being tried…";
    window.dash_clientside.set_props("job-request", { data: { ...JSON.parse(button.dataset.healthRequest), nonce: nonce } });
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-health-request]");
    if (button) ask(button);
  });

  // -- the picture --------------------------------------------------------------------------------------------------
  const [WIDTH, PAD, LINE] = [760, 16, 17];
  function lines(words, letters) {
    const found = [""];
    for (const word of words.split(/\s+/)) {
      const last = found[found.length - 1];
      if (last && last.length + word.length + 1 > letters) found.push(word);
      else found[found.length - 1] = last ? last + " " + word : word;
    }
    return found;
  }
  const write = (x, y, words, fill, bold) =>
    `<text x="${x}" y="${y}" font-size="13" fill="${fill}"${bold ? ' font-weight="bold"' : ""}>${dv.escape(words)}</text>`;

  dv.diagnosis.pictures.health = async () => {
    const summary = [...document.querySelectorAll(".dv-health-said p")].map((p) => p.textContent);
    if (!summary.length) throw new Error("The checks have not ended yet.");
    const [ink, muted] = [dv.colour("ink"), dv.colour("muted")];
    const parts = [];
    let y = 26;
    for (const card of document.querySelectorAll(".dv-health-card")) {
      const edge = dv.colour(card.matches(".attention") ? "accent" : "warn");
      const top = y - 18;
      parts.push(write(PAD + 12, y, card.querySelector("h2").textContent, ink, true));
      parts.push(write(PAD + 240, y, card.querySelector(".dv-health-mark").textContent, edge, true));
      for (const line of lines(card.querySelector(".dv-health-sentence").textContent, 112)) parts.push(write(PAD + 12, (y += LINE + 1), line, ink));
      const image = card.querySelector(".dv-health-picture");
      if (image) {
        parts.push(`<image x="${PAD + 12}" y="${y + 10}" width="${image.naturalWidth}" height="${image.naturalHeight}" href="${image.src}"/>`);
        y += image.naturalHeight + 10;
      }
      parts.push(`<rect x="${PAD - 4}" y="${top}" width="4" height="${y - top + 8}" fill="${edge}"/>`);
      y += 40;
    }
    for (const list of document.querySelectorAll(".dv-health-list")) {
      parts.push(write(PAD, y, list.querySelector("h2").textContent, muted, true));
      for (const row of list.querySelectorAll(".dv-health-row > summary")) {
        y += 8;
        parts.push(write(PAD, y + LINE, row.querySelector("b").textContent, ink, true));
        for (const line of lines(row.querySelector("span").textContent, 80)) parts.push(write(PAD + 210, (y += LINE), line, ink));
      }
      y += 36;
    }
    return { svg: parts.join(""), width: WIDTH, height: y - 10, caption: `${summary[1]}. ${summary[0]}` };
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_health: {
      answer: function (result) {
        if (result && result.kind === "diagnosis" && nonce && result.nonce === nonce && document.getElementById("diagnosis-health")) {
          nonce = null;
          window.dash_clientside.set_props("health-heard", { data: result });
        }
        return none();
      },
      // What the report is held against: a run, or a run and an epoch of it.
      against: function (value) {
        const [run, epoch] = value && value !== "alone" ? value.split("|") : [];
        const more = (run ? "&against=" + encodeURIComponent(run) : "") + (epoch ? "&against_epoch=" + epoch : "");
        for (const link of document.querySelectorAll("[data-health-report]")) link.href = link.dataset.healthReport + more;
        return none();
      },
      ask: function () {
        // React puts the cards into the page after this; who moves through the epochs asks for the one they stay at.
        clearTimeout(timer);
        timer = setTimeout(() => {
          const button = document.querySelector('[data-health-auto="true"]');
          if (!button || button.disabled || dv.selection.view !== "health") return;
          if (asked.has(button.dataset.healthRequest)) return;
          asked.add(button.dataset.healthRequest);
          ask(button);
        }, 400);
        return none();
      },
    },
  });
})();
