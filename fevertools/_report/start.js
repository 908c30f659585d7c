// Everything at once, and what belongs to the page as a whole.
const theme = byId("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
const tellTheme = () => theme.setAttribute("aria-pressed", isDark());

theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  tellTheme();
});
prefersDark.addEventListener("change", tellTheme);
tellTheme();

showSummary();
showMap();
showDistribution();
showTypical();
showUncertain();
showFiles();
showAbout();

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-face]");
  // A click without a press of a pointer is one by keyboard or by an assistive tool.
  if (button) choose(Number(button.dataset.face), event.detail === 0 ? button : null);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  hideTip();
  if (byId("panel").contains(document.activeElement)) closePanel();
});
document.addEventListener("scroll", placeTip, { passive: true });
byId("close").addEventListener("click", closePanel);
