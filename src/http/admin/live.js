// Updates the overview as the server sends changes. Without scripts the page shows the same and reloads every 30 seconds.
"use strict";

const shown = document.getElementById("live");
const link = document.getElementById("link");
const source = new EventSource("/live" + location.search);

function showLink(text, state) {
  link.textContent = text;
  link.className = state;
}

source.onopen = () => showLink("live", "good");
source.onerror = () => showLink("not connected, trying again", "warn");
source.onmessage = (event) => {
  // An update would remove a selection that the operator is making.
  const selection = getSelection();
  if (!selection.isCollapsed && shown.contains(selection.anchorNode)) return;
  const update = new DOMParser().parseFromString(event.data, "text/html").getElementById("live");
  if (!update) return;
  const focus = shown.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  shown.replaceChildren(...update.childNodes);
  if (focus) for (const a of shown.querySelectorAll("a")) if (a.getAttribute("href") === focus) a.focus({ preventScroll: true });
};
