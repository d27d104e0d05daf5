// A figure over a slider: an Explorer's curves, drawn as SVG in the page's own text colour, so that light and
// dark mode both work, or one of several Pictures. The slider is the browser's own, so mouse, touch and arrow
// keys work.
const LEFT = 54, RIGHT = 14, TOP = 32, BOTTOM = 50; // margins in CSS pixels
let count = 0;

function svg(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function scale(values, log, from, to, room) {
  const map = log ? Math.log10 : (v) => v;
  let low = map(Math.min(...values)), high = map(Math.max(...values));
  if (low === high) { low -= 0.5; high += 0.5; }
  const margin = 0.04 * (high - low);
  low -= margin; high += margin;
  const position = (v) => from + (to - from) * (map(v) - low) / (high - low);
  const ticks = [];
  if (log && high - low >= 1) {
    const step = Math.max(1, Math.ceil((high - low) / room));
    for (let e = Math.ceil(low); e <= high; e += step) ticks.push([10 ** e, "10" + superscript(e)]);
  } else {
    const raw = (high - low) / Math.max(room, 2), power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    for (let k = Math.ceil(low / step); k * step <= high; k++) {
      const value = log ? 10 ** (k * step) : k * step;
      ticks.push([value, String(Number(value.toPrecision(3))).replace("-", "−")]);
    }
  }
  return { position, ticks };
}

function superscript(e) {
  return String(e).replace(/./g, (c) => ({ "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" })[c]);
}

// The slider with its position in words, and below it the caption, which screen readers read out.
function controls(model, id, show) {
  const data = model.get("data");
  const label = document.createElement("label");
  label.style.cssText = "display:flex;align-items:center;gap:.7em;margin:.3em 0;flex-wrap:wrap";
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: 0, max: data.values.length - 1, step: 1, id: id + "-slider" });
  input.style.cssText = "flex:1 1 10em;min-height:2.2em;accent-color:#0072B2";
  const shown = document.createElement("output");
  shown.htmlFor = input.id;
  shown.style.cssText = "min-width:5em;font-variant-numeric:tabular-nums";
  label.append(data.slider, input, shown);
  const caption = document.createElement("figcaption");
  caption.id = id + "-caption";
  caption.setAttribute("aria-live", "polite");
  function update() {
    const i = Number(model.get("index"));
    input.value = i;
    input.setAttribute("aria-valuetext", data.values[i]);
    shown.textContent = data.values[i];
    caption.textContent = data.captions[i];
    show(i);
  }
  input.addEventListener("input", () => { model.set("index", Number(input.value)); model.save_changes(); update(); });
  model.on("change:index", update);
  return { nodes: [label, caption], update };
}

function curves(data, root, id) {
  const picture = svg("svg", { role: "img", "aria-labelledby": id + "-caption" });
  picture.style.cssText = "width:100%;display:block";
  const legend = document.createElement("div");
  legend.style.cssText = "display:flex;flex-wrap:wrap;gap:0 1.2em;font-size:.9em";
  data.curves.forEach((curve) => {
    const item = document.createElement("span");
    const swatch = document.createElement("span");
    swatch.style.cssText = `display:inline-block;margin-right:.4em;vertical-align:middle;background:${curve.colour};` +
      (curve.points ? "width:9px;height:9px;border-radius:5px" : "width:18px;height:3px");
    item.append(swatch, curve.name);
    legend.append(item);
  });

  // Everything is drawn anew when the width changes, so that letters keep their size on a phone.
  function show(i) {
    const width = Math.max(root.clientWidth, 280), height = Math.round(Math.min(Math.max(0.62 * width, 260), 380));
    const x = scale(data.x, data.xlog, LEFT, width - RIGHT, (width - LEFT) / 60);
    const y = scale(data.curves.flatMap((c) => c.y.flat()), data.ylog, height - BOTTOM, TOP, height / 50);
    const text = { fill: "currentColor", "font-size": 14 };
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.replaceChildren();
    for (const [v, name] of x.ticks) {
      const at = x.position(v);
      picture.append(svg("line", { x1: at, x2: at, y1: TOP, y2: height - BOTTOM, stroke: "currentColor", opacity: 0.15 }));
      picture.append(svg("text", { ...text, x: at, y: height - BOTTOM + 18, "text-anchor": "middle" }, name));
    }
    for (const [v, name] of y.ticks) {
      const at = y.position(v);
      picture.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: at, y2: at, stroke: "currentColor", opacity: 0.15 }));
      picture.append(svg("text", { ...text, x: LEFT - 7, y: at + 5, "text-anchor": "end" }, name));
    }
    picture.append(svg("text", { ...text, x: (LEFT + width - RIGHT) / 2, y: height - 8, "text-anchor": "middle" }, data.xlabel));
    picture.append(svg("text", { ...text, x: 4, y: 16 }, data.ylabel)); // level, so that it fits a phone
    data.curves.forEach((curve) => {
      const at = data.x.map((v, k) => [x.position(v), y.position(curve.y[i][k])]);
      if (curve.points) {
        for (const [cx, cy] of at) picture.append(svg("circle", { cx, cy, r: 4.5, fill: curve.colour }));
      } else {
        picture.append(svg("polyline", { points: at.map((p) => p.join(",")).join(" "), fill: "none", stroke: curve.colour, "stroke-width": 3 }));
      }
    });
  }
  return { nodes: [legend, picture], show };
}

function pictures(data) {
  const image = document.createElement("img");
  image.style.cssText = "width:100%;display:block;background:white";
  function show(i) {
    image.src = "data:image/webp;base64," + data.pictures[i];
    image.alt = data.captions[i];
  }
  return { nodes: [image], show };
}

function render({ model, el }) {
  const data = model.get("data");
  const id = "interactive-" + ++count;
  const root = document.createElement("figure");
  root.style.cssText = "margin:0;max-width:42rem;color:var(--pst-color-text-base,inherit);font:inherit";
  const drawn = data.pictures ? pictures(data) : curves(data, root, id);
  const slider = controls(model, id, drawn.show);
  root.append(...drawn.nodes, ...slider.nodes);
  el.append(root);
  let seen = 0;
  new ResizeObserver(() => {
    if (root.clientWidth !== seen) { seen = root.clientWidth; slider.update(); }
  }).observe(root);
}

export default { render };
