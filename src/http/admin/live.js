// Keeps the overview current. Without it the page is the same, and is loaded anew now and then.
"use strict";

const shown = document.getElementById("live");
const link = document.getElementById("link");
const source = new EventSource("/live" + location.search);

function tell(words, state) {
  link.textContent = words;
  link.className = state;
}

source.onopen = () => tell("live", "good");
source.onerror = () => tell("not connected, trying again", "warn");
source.onmessage = (event) => {
  // Whoever is selecting something keeps it.
  const selection = getSelection();
  if (!selection.isCollapsed && shown.contains(selection.anchorNode)) return;
  const came = new DOMParser().parseFromString(event.data, "text/html").getElementById("live");
  if (!came) return;
  const focus = shown.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  shown.replaceChildren(...came.childNodes);
  if (focus) for (const a of shown.querySelectorAll("a")) if (a.getAttribute("href") === focus) a.focus({ preventScroll: true });
};
