// Draws a page's stored interactive figures without a kernel. Each of them is an anywidget: its front end
// (a JavaScript module with a render function) and its state stand in the page, so a host for such modules
// is all that is needed. The widget manager of Jupyter, which can draw any widget, weighs 3.6 MB.
const stored = (kind) =>
  [...document.querySelectorAll(`script[type="application/vnd.jupyter.widget-${kind}+json"]`)];
const states = Object.assign({}, ...stored("state").map((script) => JSON.parse(script.textContent).state));
const modules = new Map(); // a front end that several figures share is loaded once

function load(source) {
  if (!modules.has(source)) {
    modules.set(source, import(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))));
  }
  return modules.get(source);
}

// What a front end may ask of its model; without a kernel, setting a value tells the page's listeners only.
function modelOf(state) {
  const listeners = new Map();
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const call of listeners.get("change:" + name) ?? []) call();
    },
    save_changes() {},
    on(event, call) { listeners.set(event, [...(listeners.get(event) ?? []), call]); },
    off(event, call) { listeners.set(event, (listeners.get(event) ?? []).filter((c) => c !== call)); },
  };
}

for (const script of stored("view")) {
  const { state } = states[JSON.parse(script.textContent).model_id];
  const el = document.createElement("div");
  el.className = "interactive-figure";
  script.after(el);
  load(state._esm).then((module) => module.default.render({ model: modelOf(state), el }));
}

// A playground draws once it is on the screen. On paper the still picture takes the place of one that never was.
const waiting = () => document.querySelectorAll(".interactive-figure:has(.playground:not([data-ready], [hidden]))");
addEventListener("beforeprint", () => {
  for (const figure of waiting()) {
    const still = document.createElement("div");
    still.className = "still";
    still.innerHTML = figure.nextElementSibling?.textContent ?? "";
    figure.firstChild.hidden = true;
    figure.append(still);
  }
});
addEventListener("afterprint", () => {
  for (const still of document.querySelectorAll(".interactive-figure > .still")) {
    still.previousSibling.hidden = false;
    still.remove();
  }
});
