// The facts, and what every section is made of. Text from outside only ever becomes text nodes and attribute values.
const facts = JSON.parse(document.getElementById("data").textContent);
const { faces, labels, sources } = facts;
const byId = (id) => document.getElementById(id);
const MOST_ENTROPY = Math.log(labels.length);

// Each label has a shape of its own, about 20 units wide.
const SHAPES = [
  "M-9 0a9 9 0 1 0 18 0a9 9 0 1 0-18 0z",
  "M0-10.5L10 7.5H-10z",
  "M0-11.5L9.5 0L0 11.5L-9.5 0z",
  "M0 10.5L10-7.5H-10z",
  "M-8-8H8V8H-8z",
  "M-3.6-10H3.6V-3.6H10V3.6H3.6V10H-3.6V3.6H-10V-3.6H-3.6z",
  "M0-11L2.7-3.7L10.5-3.4L4.4 1.4L6.5 8.9L0 4.6L-6.5 8.9L-4.4 1.4L-10.5-3.4L-2.7-3.7z",
  "M-5 -9.6L0-4.8L5-9.6L9.6-5L4.8 0L9.6 5L5 9.6L0 4.8L-5 9.6L-9.6 5L-4.8 0L-9.6-5z",
];

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const percent = (part, digits = 0) => `${(100 * part).toFixed(digits)} %`;
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

function symbol(label) {
  const shape = draw("path", { d: SHAPES[label % SHAPES.length] });
  return draw("svg", { class: `symbol l${label}`, viewBox: "-12 -12 24 24", "aria-hidden": "true" }, shape);
}

// Some images have more than one face here: their faces need a number.
const crowded = new Set(faces.filter((face) => face.number > 0).map((face) => face.image));

// What all paths begin with need not be read again and again.
const folder = sources.reduce((start, path) => {
  let length = Math.min(start.length, path.length);
  while (start.slice(0, length) !== path.slice(0, length)) length -= 1;
  return start.slice(0, length);
}, sources[0] ?? "").replace(/[^/\\]*$/, "");

function nameOf(face) {
  return sources[face.image].slice(folder.length) + (crowded.has(face.image) ? `, face ${face.number + 1}` : "");
}

const describe = (face) => `${labels[face.label]} ${percent(face.probabilities[face.label])}, ${nameOf(face)}`;

function picture(face, size, alt = "") {
  const shown = { width: size, height: size };
  if (face.picture) return make("img", { ...shown, src: face.picture, alt });
  const blank = make("span", { class: "blank", role: alt ? "img" : null, "aria-label": alt || null }, symbol(face.label));
  Object.assign(blank.style, { width: `${size}px`, height: `${size}px` });
  return blank;
}

// A button that chooses a face; `start.js` listens to all of them.
function faceButton(number, size, caption, name = describe(faces[number])) {
  const face = faces[number];
  const text = typeof caption === "string" ? make("span", { class: "caption" }, symbol(face.label), caption) : caption;
  return make("button", { type: "button", class: "face", "data-face": number, "aria-label": name, title: nameOf(face) },
    picture(face, size), text);
}

function table(caption, heads, rows, numeric = []) {
  const cell = (tag, value, column, more) =>
    make(tag, { ...more, class: numeric.includes(column) ? "number" : "path" }, value);
  const head = make("tr", {}, ...heads.map((text, column) => cell("th", text, column, { scope: "col" })));
  const body = rows.map((row) =>
    make("tr", {}, ...row.map((value, column) =>
      column ? cell("td", value, column) : cell("th", value, column, { scope: "row" }))));
  return make("table", {}, make("caption", { class: "hidden" }, caption), make("thead", {}, head),
    make("tbody", {}, ...body));
}
