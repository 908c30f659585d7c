// The map: a point for each face, of which one at a time can be reached by Tab, and the others by keys.
const WIDTH = 1000, MARGIN = 35, REACH = 28; // REACH: pixels from the pointer within which a point is meant
const RADIUS = faces.length < 60 ? 9 : faces.length < 400 ? 7 : faces.length < 1500 ? 5.5 : 4.5; // pixels
const plot = draw("svg", {
  viewBox: `${-MARGIN} ${-MARGIN} ${WIDTH + 2 * MARGIN} ${facts.height + 2 * MARGIN}`,
  role: "group", "aria-labelledby": "map-title", "aria-describedby": "map-help",
});
const links = draw("g", { class: "links" });
const ring = draw("circle", { class: "ring", visibility: "hidden" }), chosenRing = draw("circle", { class: "ring", visibility: "hidden" });
const points = faces.map((face, number) => draw("g",
  { class: `point l${face.label}`, role: "button", tabindex: "-1", "aria-label": describe(face), "data-face": number,
    transform: `translate(${face.place[0]} ${face.place[1]})` },
  draw("path", { class: "dot", d: SHAPES[face.label % SHAPES.length] })));
const wanted = new Set(); // labels; none of them means all
let shown = faces.map((_, number) => number);
let current = null; // the point that Tab reaches

function showMap() {
  if (!faces.length) {
    byId("plot").replaceWith(make("p", {}, "No face was found."));
    byId("filter").remove();
    return;
  }
  plot.append(links, ...points, chosenRing, ring);
  byId("plot").append(plot);
  new ResizeObserver(fit).observe(plot);
  plot.addEventListener("pointermove", (event) => hover(nearest(event)));
  plot.addEventListener("pointerleave", () => hover(focused()));
  plot.addEventListener("click", (event) => {
    const number = event.target.closest("[data-face]") ? numberOf(event.target.closest("[data-face]")) : nearest(event);
    if (number !== null) choose(number, null);
    event.stopPropagation();
  });
  plot.addEventListener("keydown", onKey);
  // Not on the drawing itself: browsers let Tab stop at a drawing that listens for the focus.
  byId("plot").addEventListener("focusin", (event) => { reach(numberOf(event.target)); hover(current); });
  byId("plot").addEventListener("focusout", () => hover(null));
  addFilter();
  filter();
}

const numberOf = (element) => Number(element.dataset.face);
const hideTip = () => { byId("tip").hidden = true; };

// The point on which the keyboard is.
function focused() {
  const point = plot.querySelector(".point:focus-visible");
  return point ? numberOf(point) : null;
}

// Points have the same size in pixels at every width of the page.
function fit() {
  const unit = (WIDTH + 2 * MARGIN) / (plot.clientWidth || 1);
  const size = Math.max(unit, (facts.height + 2 * MARGIN) / (plot.clientHeight || 1)) * RADIUS;
  plot.style.setProperty("--dot", size / 10);
  for (const circle of [ring, chosenRing]) circle.setAttribute("r", 1.9 * size);
}

function nearest(event) {
  const matrix = plot.getScreenCTM();
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
  const distance = (number) => Math.hypot(faces[number].place[0] - at.x, faces[number].place[1] - at.y);
  const best = shown.reduce((one, other) => (one === null || distance(other) < distance(one) ? other : one), null);
  return best !== null && distance(best) * matrix.a < REACH ? best : null;
}

function surround(circle, number) {
  circle.setAttribute("visibility", number === null ? "hidden" : "visible");
  if (number === null) return;
  circle.setAttribute("cx", faces[number].place[0]);
  circle.setAttribute("cy", faces[number].place[1]);
}

function hover(number) {
  surround(ring, number);
  const tip = byId("tip");
  tip.hidden = number === null;
  if (number === null) return;
  const face = faces[number];
  if (tip.dataset.shows !== String(number)) {
    tip.dataset.shows = number;
    tip.replaceChildren(picture(face, 72), make("div", {},
      make("strong", {}, `${labels[face.label]} ${percent(face.probabilities[face.label])}`),
      make("div", { class: "path" }, make("bdi", {}, nameOf(face)))));
  }
  placeTip();
}

function placeTip() {
  const tip = byId("tip");
  if (tip.hidden) return;
  const box = points[tip.dataset.shows].getBoundingClientRect(), size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(box.left + box.width / 2 - size.width / 2, 8), innerWidth - size.width - 8);
  const above = box.top - size.height - 12;
  Object.assign(tip.style, { left: `${left}px`, top: `${above > 8 ? above : box.bottom + 12}px` });
}

function markOnMap(number) {
  surround(chosenRing, number);
  const [x, y] = number === null ? [] : faces[number].place;
  links.replaceChildren(...(number === null ? [] : faces[number].near.map(([other]) =>
    draw("line", { x1: x, y1: y, x2: faces[other].place[0], y2: faces[other].place[1] }))));
}

// ------------------------------------------------------------------------------------------------------------- filter

function addFilter() {
  labels.forEach((name, label) => {
    const here = faces.filter((face) => face.label === label).length;
    if (!here) return;
    const button = make("button", { type: "button", "aria-pressed": "false" }, symbol(label), `${name} ${here}`);
    button.addEventListener("click", () => {
      if (!wanted.delete(label)) wanted.add(label);
      button.setAttribute("aria-pressed", wanted.has(label));
      filter();
    });
    byId("filter").append(button);
  });
  const all = make("button", { type: "button", id: "all" }, "Show all");
  all.addEventListener("click", () => {
    wanted.clear();
    for (const button of byId("filter").querySelectorAll("[aria-pressed]")) button.setAttribute("aria-pressed", "false");
    filter();
  });
  byId("filter").append(all);
}

function filter() {
  const fits = (number) => !wanted.size || wanted.has(faces[number].label);
  shown = faces.map((_, number) => number).filter(fits);
  points.forEach((point, number) => point.classList.toggle("off", !fits(number)));
  hover(null);
  reach(current !== null && fits(current) ? current : shown[0]);
  const names = [...wanted].map((label) => labels[label]).join(", ");
  const which = wanted.size ? `, those of ${names}` : "";
  byId("map-status").textContent = `${count(shown.length, "face")} of ${faces.length.toLocaleString("en")} on the map${which}.`;
}

// ----------------------------------------------------------------------------------------------------------- keyboard

function reach(number) {
  if (current !== null) points[current].setAttribute("tabindex", "-1");
  current = number;
  points[number].setAttribute("tabindex", "0");
}

const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// The nearest point within 45 degrees of a direction; what lies askew counts as farther away.
function towards([dx, dy]) {
  const [x, y] = faces[current].place;
  let best = null, least = Infinity;
  for (const number of shown) {
    const [right, down] = [faces[number].place[0] - x, faces[number].place[1] - y];
    const along = right * dx + down * dy, across = Math.abs(right * dy) + Math.abs(down * dx);
    const cost = along + 2 * across;
    if (along > 0 && across <= along && cost < least) [best, least] = [number, cost];
  }
  return best;
}

function onKey(event) {
  const place = shown.indexOf(current);
  const steps = { PageDown: shown[place + 1], PageUp: shown[place - 1], Home: shown[0], End: shown.at(-1) };
  if (event.key === "Enter" || event.key === " ") {
    choose(current, points[current]);
  } else if (event.key === "Escape") {
    hideTip();
  } else if (event.key in TURNS || event.key in steps) {
    const next = event.key in TURNS ? towards(TURNS[event.key]) : steps[event.key];
    if (next != null) points[next].focus();
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}
