// An image of the user's own, chosen or dropped on a page: the server fits it to the run's inputs and answers with its key.
(function () {
  "use strict";
  const dv = window.dnnviz;
  const MOST_BYTES = 32 * 1024 * 1024;

  async function send(file, run) {
    if (file.size > MOST_BYTES) return { error: `“${file.name}” has ${(file.size / 1024 / 1024).toFixed(0)} MB; images up to ${MOST_BYTES / 1024 / 1024} MB can be taken.` };
    try {
      const url = dv.dataUrl(run, "upload", { name: file.name.slice(-80) });
      return await (await fetch(url, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } })).json();
    } catch (_) {
      return { error: "The image could not be sent; is the app still running?" };
    }
  }

  // button: selector of what opens the file chooser. here: whether the page is shown. run: () → id of the run. take: (key) → shows the
  // image. say: (sentence) → tells why there is none.
  dv.upload = function ({ button, here, run, take, say }) {
    async function upload(file) {
      const answer = await send(file, run());
      if (answer.error) say(answer.error);
      else take(answer.key);
    }
    document.addEventListener("click", (event) => {
      if (!here() || !event.target.closest(button)) return;
      const chooser = Object.assign(document.createElement("input"), { type: "file", accept: "image/*" });
      chooser.addEventListener("change", () => chooser.files.length && upload(chooser.files[0]));
      chooser.click();
    });
    for (const name of ["dragover", "drop"])
      document.addEventListener(name, (event) => {
        if (!here() || !event.dataTransfer || ![...event.dataTransfer.types].includes("Files")) return;
        event.preventDefault();
        if (name === "drop" && event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
      });
  };
  // Where the picture of an upload lies.
  dv.uploadUrl = (key) => `${dv.prefix()}data/result/${key}/image.png`;
})();
