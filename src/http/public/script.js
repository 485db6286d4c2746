// Makes the login code in the browser. The password is never sent: the page's policy forbids this script every connection, and
// the field has no name, so no form contains it. The server has made the text around the password (client_setup/dclogin.rs).

const $ = (id) => document.getElementById(id);

// All characters but the unreserved ones (RFC 3986 section 2.3).
const encoded = (value) =>
  encodeURIComponent(value).replace(/[!'()*]/g, (character) => "%" + character.charCodeAt(0).toString(16).toUpperCase());

function draw(content) {
  const code = qrcodegen.QrCode.encodeText(content, qrcodegen.QrCode.Ecc.LOW);
  // The standard's quiet zone: four modules.
  const quiet = 4, side = code.size + 2 * quiet;
  let path = "";
  for (let y = 0; y < code.size; y++)
    for (let x = 0; x < code.size; x++) if (code.getModule(x, y)) path += `M${x + quiet},${y + quiet}h1v1h-1z`;
  const element = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const picture = element("svg", { viewBox: `0 0 ${side} ${side}`, role: "img", "aria-label": "login code" });
  picture.append(element("rect", { width: side, height: side, fill: "#fff" }), element("path", { d: path, fill: "#000" }));
  $("picture").replaceChildren(picture);
}

function show(isCode) {
  $("login").hidden = $("note").hidden = isCode;
  $("code").hidden = !isCode;
}

// Nothing of the password stays in the page.
function hide() {
  $("password").value = "";
  $("picture").replaceChildren();
  $("open").removeAttribute("href");
  show(false);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  $("failure").hidden = true;
  const { before, after } = JSON.parse($("settings").textContent);
  const content = before + encoded($("password").value) + after;
  try {
    draw(content);
  } catch {
    $("failure").hidden = false;
    return;
  }
  $("password").value = "";
  $("open").href = content;
  show(true);
  $("code").focus();
});
$("hide").addEventListener("click", () => {
  hide();
  $("password").focus();
});
// A browser may keep the page for its "back" button.
addEventListener("pagehide", hide);
show(false);
