// The embedding page's canvas under the plot: images instead of points, or points that are too many for plotly to draw.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const SPRITE = { size: 32, columns: 64, count: 4096 }; // as dnnviz/endpoints.py makes it
  let sprite = { url: "", image: null };
  let last = null; // the plot drawn over
  dv.paintEmbedding = function (plot) {
    const canvas = document.getElementById("embedding-canvas");
    last = plot;
    if (!canvas) return;
    const box = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(box.width * ratio) || canvas.height !== Math.round(box.height * ratio)) {
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
    const { state, painted } = dv.embedding;
    const { drawing, look } = state;
    if (!drawing || !drawing.flat || !plot || !plot._fullLayout || !plot._fullLayout.xaxis) return;
    if (look.as === "images") {
      const url = dv.dataUrl(drawing.run, "sprite.png", { size: SPRITE.size });
      if (sprite.url !== url) {
        sprite = { url, image: new Image() };
        sprite.image.onload = () => dv.paintEmbedding(last);
        sprite.image.src = url;
      }
      if (sprite.image.complete && sprite.image.naturalWidth) paint(pen, plot, imagePainter(pen, sprite.image));
    } else if (painted(drawing)) paint(pen, plot, pointPainter(pen));
  };

  // Calls draw(row, x, y, fades) for every visible point, in the order of the inputs, the chosen one last.
  function paint(pen, plot, draw) {
    const { state, groupsOf, fading, FADED } = dv.embedding;
    const { drawing, points, hidden, marks } = state;
    const { xaxis, yaxis } = plot._fullLayout;
    const groups = groupsOf(drawing);
    const faded = fading();
    const across = (v) => xaxis._offset + ((v - xaxis.range[0]) / (xaxis.range[1] - xaxis.range[0])) * xaxis._length;
    const down = (v) => yaxis._offset + (1 - (v - yaxis.range[0]) / (yaxis.range[1] - yaxis.range[0])) * yaxis._length;
    pen.save();
    pen.beginPath();
    pen.rect(xaxis._offset, yaxis._offset, xaxis._length, yaxis._length);
    pen.clip();
    const chosen = marks && marks.input !== undefined ? drawing.inputs.indexOf(marks.input) : -1;
    const rows = [...groups.keys()].filter((i) => i !== chosen).concat(chosen >= 0 ? [chosen] : []);
    for (const i of rows) {
      if (hidden.has(groups[i])) continue;
      const fades = Boolean(faded && faded(i));
      pen.globalAlpha = fades ? FADED : 0.9;
      draw(i, across(points[0][i]), down(points[1][i]), fades);
    }
    pen.restore();
  }
  function imagePainter(pen, image) {
    const { drawing } = dv.embedding.state;
    const side = drawing.inputs.length > 1500 ? 16 : drawing.inputs.length > 500 ? 22 : 30;
    const colour = colours(drawing);
    pen.lineWidth = 2;
    return (i, x, y) => {
      const input = drawing.inputs[i];
      if (input >= SPRITE.count) return;
      const [left, top] = [(input % SPRITE.columns) * SPRITE.size, Math.floor(input / SPRITE.columns) * SPRITE.size];
      pen.drawImage(image, left, top, SPRITE.size, SPRITE.size, x - side / 2, y - side / 2, side, side);
      pen.strokeStyle = colour(i);
      pen.strokeRect(x - side / 2, y - side / 2, side, side);
    };
  }
  function pointPainter(pen) {
    const { state, outlines, isWrong } = dv.embedding;
    const { drawing } = state;
    const outlined = outlines(drawing);
    const radius = drawing.figure.data[0].marker.size / 2;
    const colour = colours(drawing);
    pen.strokeStyle = dv.colour("ink");
    pen.lineWidth = 1.2;
    return (i, x, y, fades) => {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fillStyle = colour(i);
      pen.fill();
      if (outlined && !fades && isWrong(drawing, i)) pen.stroke();
    };
  }
  // Row → colour, as plotly's scale of the figure gives it.
  function colours(drawing) {
    const { colorscale, cmin, cmax } = drawing.figure.data[0].marker;
    const table = Array.from({ length: 257 }, (_, step) => mix(colorscale, step / 256));
    if (drawing.legend.entries) return (i) => drawing.legend.entries[drawing.colours[i]][1];
    return (i) => table[Math.round(256 * Math.min(Math.max((drawing.colours[i] - cmin) / (cmax - cmin), 0), 1))];
  }
  function mix(scale, share) {
    const above = Math.max(scale.findIndex(([edge]) => edge >= share), 1);
    const [[low, from], [high, to]] = [scale[above - 1], scale[above]];
    const part = (text, at) => parseInt(text.slice(at, at + 2), 16);
    const at = (share - low) / (high - low || 1);
    return "rgb(" + [1, 3, 5].map((k) => Math.round(part(from, k) + at * (part(to, k) - part(from, k)))).join(",") + ")";
  }
})();
