// The diagnosis page: shows one view at a time and saves what it shows.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const page = (dv.diagnosis = {});
  page.pictures = {}; // by view: async () => ({svg, width, height, caption}), as for dv.picture.provide

  dv.picture.provide("/diagnosis", async () => {
    const draw = page.pictures[document.querySelector(".dv-page")?.dataset.view];
    if (!draw) throw new Error("This view has nothing to save yet.");
    return draw();
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    dnnviz_diagnosis: {
      view: function (view) {
        const frame = document.querySelector(".dv-page");
        if (frame) frame.dataset.view = view;
        return window.dash_clientside.no_update;
      },
    },
  });
})();
