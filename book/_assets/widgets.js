// Loaded after require.js and before embed-amd.js, on pages with stored widgets.
// 1. Where the stored widget front ends are, relative to this file.
(function () {
  var base = document.currentScript.src.replace(/widgets\.js.*$/, "vendor/");
  window.requirejs.config({
    paths: {
      anywidget: base + "anywidget/index",
      // Modules inside embed-amd.js; these addresses are where they look for their icon fonts.
      "@jupyter-widgets/html-manager": base + "html-manager/index",
      "@jupyter-widgets/html-manager/dist": base + "html-manager",
    },
  });
})();
// 2. The widget manager calls the interface of MathJax 2: give it one on top of MathJax 3.
window.addEventListener("load", function () {
  var mathjax = window.MathJax;
  if (!mathjax || mathjax.Hub) return;
  mathjax.Hub = {
    Queue: function (call) {
      var element = call[2];
      (mathjax.startup ? mathjax.startup.promise : Promise.resolve()).then(function () {
        element.classList.add("tex2jax_process");
        return mathjax.typesetPromise([element]);
      });
    },
  };
});
