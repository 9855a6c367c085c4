// The attribution page's colours: a map over the grey picture, its scale, and the legend.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = (dv.attribution = dv.attribution || {});

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
  // How maps are shown, as the selection says.
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

  function legend(selection, gallery) {
    const box = document.getElementById("attribution-legend");
    const how = look(selection);
    const ramp = (css) => {
      const made = page.element("span", "ramp");
      made.style.background = css;
      return made;
    };
    const parts = [];
    const rgb = (c) => "rgb(" + c.join(",") + ")";
    if (gallery.columns.some((column) => isSigned(column, how))) parts.push("against", ramp(`linear-gradient(to right,${rgb(AGAINST)},#8a8a8a,${rgb(FOR)})`), "for");
    if (gallery.columns.some((column) => !isSigned(column, how))) parts.push(page.element("span", parts.length ? "ms-3" : "", "0"), ramp("linear-gradient(to right," + (MAPS[how.colours] || MAPS.inferno).join(",") + ")"), "strongest");
    box.replaceChildren(...parts);
    box.title = "Every tile has its own scale; the strongest colour stands at " + (how.clip === 100 ? "its largest value" : `the ${how.clip}th percentile of its values`);
  }

  Object.assign(page, { look, strongest, picture, paint, legend, colours: { FOR, AGAINST } });
})();
