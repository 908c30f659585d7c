// The chosen face: its probabilities, and its neighbours.
let opener = null; // what had the focus when a face was chosen by keyboard

function probabilities(face) {
  const order = labels.map((_, label) => label).sort((a, b) => face.probabilities[b] - face.probabilities[a]);
  const rows = order.map((label) => {
    const meter = make("div", { class: `meter l${label}` });
    meter.style.width = percent(face.probabilities[label], 1).replace(" ", "");
    return make("tr", {},
      make("th", { scope: "row" }, symbol(label), ` ${labels[label]}`),
      make("td", { "aria-hidden": "true" }, meter),
      make("td", { class: "number" }, percent(face.probabilities[label], 1)));
  });
  return make("table", { class: "probabilities" }, make("caption", { class: "hidden" }, "Probabilities"),
    make("tbody", {}, ...rows));
}

function neighbours(face) {
  const items = face.near.map(([number, alike]) =>
    make("li", {}, faceButton(number, 56, alike.toFixed(2),
      `${describe(faces[number])}, similarity ${alike.toFixed(2)}`)));
  return items.length ? make("ul", { class: "faces", id: "near" }, ...items)
    : make("p", { class: "quiet" }, "There is no other face.");
}

function choose(number, from) {
  const face = faces[number];
  // What was chosen in the panel goes with its old content: the way back is to where the first one was chosen.
  if (from && !byId("panel").contains(from)) opener = from;
  byId("panel-body").replaceChildren(
    make("div", { class: "chosen" },
      picture(face, 96, `Face of ${nameOf(face)}`),
      make("div", {},
        make("div", { class: "name" }, symbol(face.label), `${labels[face.label]} ${percent(face.probabilities[face.label])}`),
        make("div", { class: "quiet" }, `entropy ${face.entropy.toFixed(2)} of ${MOST_ENTROPY.toFixed(2)} nats`),
        make("bdi", { class: "quiet path" }, folder + nameOf(face)))),
    make("h3", {}, "Most alike"),
    neighbours(face),
    make("h3", {}, "Probabilities"),
    probabilities(face));
  byId("panel").scrollTop = 0;
  byId("close").hidden = false;
  document.documentElement.classList.add("choosing");
  markChosen(number);
  byId("status").textContent = `Chosen: ${describe(face)}. ${count(face.near.length, "similar face")} listed.`;
  if (from) byId("panel-title").focus();
}

function closePanel() {
  const inside = byId("panel").contains(document.activeElement);
  byId("panel-body").replaceChildren(make("p", { class: "quiet" }, "Choose a face on the map or in a list."));
  byId("close").hidden = true;
  document.documentElement.classList.remove("choosing");
  markChosen(null);
  if (inside) (opener ?? byId("content")).focus();
  opener = null;
}

function markChosen(number) {
  for (const old of document.querySelectorAll('[aria-current="true"]')) old.removeAttribute("aria-current");
  if (number !== null) {
    for (const one of document.querySelectorAll(`[data-face="${number}"]`)) one.setAttribute("aria-current", "true");
  }
  markOnMap(number);
}
