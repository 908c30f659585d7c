// What is not the map: the distribution, lists of faces, files, and where the page comes from.
const total = facts.counts.reduce((sum, { faces: number }) => sum + number, 0);

function showSummary() {
  const parts = [`${count(total, "face")} in ${count(facts.images, "image")}`];
  if (faces.length < total) parts.push(`${faces.length.toLocaleString("en")} of them on this page`);
  if (facts.faceless.count) parts.push(`${count(facts.faceless.count, "image")} without a face`);
  if (facts.failed.count) parts.push(`${facts.failed.count.toLocaleString("en")} failed`);
  byId("summary").textContent = parts.join(" · ");
}

// -------------------------------------------------------------------------------------------------------- distribution

const ROW = 32, NAME = 118, VALUE = 112; // pixels

function bars(width) {
  const most = Math.max(1, ...facts.counts.map(({ faces: number }) => number));
  const rows = labels.map((name, label) => {
    const number = facts.counts[label].faces, middle = label * ROW + ROW / 2;
    const length = Math.max(number ? 1 : 0, (number / most) * (width - NAME - VALUE));
    return draw("g", { class: `l${label}` },
      draw("path", { class: "symbol", d: SHAPES[label % SHAPES.length], transform: `translate(10 ${middle}) scale(.7)` }),
      draw("text", { x: 26, y: middle + 5 }, name),
      draw("rect", { class: "bar", x: NAME, y: middle - 9, width: length, height: 18, rx: 2 }),
      draw("text", { x: NAME + length + 8, y: middle + 5 }, `${number.toLocaleString("en")} · ${percent(number / Math.max(total, 1), 1)}`));
  });
  return draw("svg", { viewBox: `0 0 ${width} ${labels.length * ROW}`, role: "img",
    "aria-label": "Bar chart of the faces of each expression; the numbers are in the table below." }, ...rows);
}

function showDistribution() {
  new ResizeObserver(([entry]) => {
    byId("bars").replaceChildren(bars(Math.max(280, Math.round(entry.contentRect.width))));
  }).observe(byId("bars"));
  const rows = labels.map((name, label) => {
    const { faces: number, mean } = facts.counts[label];
    return [name, number.toLocaleString("en"), percent(number / Math.max(total, 1), 1), percent(mean, 1)];
  });
  byId("counts").append(table("Faces of each expression", ["Expression", "Faces", "Share", "Mean probability"], rows,
    [1, 2, 3]));
}

// -------------------------------------------------------------------------------------------------------------- faces

function row(title, numbers) {
  const items = numbers.map((number) =>
    make("li", {}, faceButton(number, 52, percent(faces[number].probabilities[faces[number].label]))));
  return make("div", {}, make("h4", { class: "quiet" }, title), make("ul", { class: "faces" }, ...items));
}

function showTypical() {
  labels.forEach((name, label) => {
    if (!facts.most[label].length) return;
    const parts = [row("Most typical", facts.most[label])];
    if (facts.least[label].length) parts.push(row("Least typical", facts.least[label]));
    byId("typical-list").append(make("div", { class: "label" },
      make("h3", {}, symbol(label), `${name} (${count(facts.counts[label].faces, "face")})`),
      make("div", { class: "pair" }, ...parts)));
  });
  if (!faces.length) byId("typical-list").append(make("p", {}, "No face was found."));
}

const FIRST = 12; // uncertain faces that are shown without asking

function uncertainFace(number) {
  const face = faces[number];
  const best = labels.map((_, label) => label).sort((a, b) => face.probabilities[b] - face.probabilities[a]);
  const lines = [...best.slice(0, 2).map((label) => `${labels[label]} ${percent(face.probabilities[label])}`),
    `entropy ${face.entropy.toFixed(2)}`];
  const caption = make("span", { class: "lines" }, ...lines.map((line) => make("span", {}, line)));
  return make("li", {}, faceButton(number, 64, caption, [...lines, nameOf(face)].join(", ")));
}

function showUncertain() {
  byId("uncertain-help").textContent = "Those with the largest entropy of their probabilities: " +
    `0 is certain, ${MOST_ENTROPY.toFixed(2)} nats no idea. Look at them before you rely on a label.`;
  const items = facts.uncertain.map(uncertainFace);
  byId("uncertain-list").append(make("ol", {}, ...items));
  const rest = items.slice(FIRST);
  if (!rest.length) return;
  const more = make("button", { type: "button", "aria-expanded": "false" }, `Show all ${items.length}`);
  const show = (open) => {
    for (const item of rest) item.hidden = !open;
    more.setAttribute("aria-expanded", open);
    more.textContent = open ? `Show the first ${FIRST}` : `Show all ${items.length}`;
  };
  more.addEventListener("click", () => show(more.getAttribute("aria-expanded") === "false"));
  show(false);
  byId("uncertain-list").append(more);
}

// -------------------------------------------------------------------------------------------------------------- files

function files(title, heads, { count: number, names }, rows) {
  const list = make("details", { open: number > 0 && number <= 20 }, make("summary", {}, `${title}: ${number.toLocaleString("en")}`));
  if (number) list.append(make("div", { class: "scroll" }, table(title, heads, rows)));
  if (number > names.length) list.append(make("p", { class: "quiet" }, `and ${count(number - names.length, "other")}`));
  return list;
}

function showFiles() {
  const name = (text) => make("bdi", {}, text);
  byId("files-list").append(
    files("Could not be used", ["File", "Why"], facts.failed, facts.failed.names.map(([file, why]) => [name(file), name(why)])),
    files("Without a face", ["File"], facts.faceless, facts.faceless.names.map((file) => [name(file)])));
}

function showAbout() {
  for (const [term, text] of facts.about) byId("about-list").append(make("dt", {}, term), make("dd", {}, text));
}
