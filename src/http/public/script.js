// Puts the login code together, here in the browser: what is typed in is never sent anywhere. The page's policy forbids this
// script every connection. The code's text is that of src/client_setup/dclogin.rs.

const $ = (id) => document.getElementById(id);
const sealed = JSON.parse($("settings").textContent);
const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const text = new TextEncoder();

// What is handed out to `name`, an address or a domain; nothing can be read of it without that name.
async function unseal(name) {
  if (!globalThis.crypto?.subtle) return null;
  const secret = await crypto.subtle.importKey("raw", text.encode(name), "PBKDF2", false, ["deriveBits"]);
  const terms = { name: "PBKDF2", hash: "SHA-256", salt: bytes(sealed.salt), iterations: sealed.iterations };
  const derived = new Uint8Array(await crypto.subtle.deriveBits(terms, secret, 384));
  const id = btoa(String.fromCharCode(...derived.subarray(0, 16)));
  const entry = sealed.entries.find((entry) => entry.id === id);
  if (!entry) return null;
  const key = await crypto.subtle.importKey("raw", derived.subarray(16), "AES-GCM", false, ["decrypt"]);
  const opened = await crypto.subtle.decrypt({ name: "AES-GCM", iv: new Uint8Array(12) }, key, bytes(entry.data));
  return JSON.parse(new TextDecoder().decode(opened));
}

async function settingsOf(address) {
  const lower = address.toLowerCase();
  return (await unseal(lower)) ?? (await unseal(lower.slice(lower.lastIndexOf("@") + 1)));
}

// RFC 3986: all but the unreserved characters.
const encoded = (value) =>
  encodeURIComponent(value).replace(/[!'()*]/g, (character) => "%" + character.charCodeAt(0).toString(16).toUpperCase());

function link(address, password, incoming, outgoing, anyCertificate) {
  const at = address.lastIndexOf("@");
  const local = address.slice(0, at), domain = address.slice(at + 1);
  let link = `dclogin://${encoded(local)}@${encoded(domain)}/?p=${encoded(password)}&v=1`;
  link += `&ih=${encoded(incoming.host)}&ip=${incoming.port}&is=${incoming.security}`;
  if (outgoing.host) {
    link += `&sh=${encoded(outgoing.host)}&sp=${outgoing.port}&ss=${outgoing.security}`;
    const login = outgoing.login.replace("{login}", () => address).replace("{local}", () => local)
      .replaceAll("{domain}", () => domain);
    if (login !== address) link += `&su=${encoded(login)}`;
  }
  return anyCertificate ? link + "&ic=2" : link;
}

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

function hide() {
  $("code").hidden = true;
  $("picture").replaceChildren();
  $("open").removeAttribute("href");
}

let known = null, asked = "", looking = Promise.resolve();

// Fills in where mail is sent, as far as it is known, and says what is not.
async function lookUp() {
  hide();
  const address = $("address").value.trim();
  asked = address;
  known = /.@./.test(address) ? await settingsOf(address) : null;
  if ($("address").value.trim() !== address) return;
  const outgoing = known?.outgoing;
  $("smtp-host").value = outgoing?.host ?? "";
  $("smtp-port").value = outgoing?.port ?? "";
  $("smtp-security").value = outgoing?.security ?? "ssl";
  $("smtp-login").value = outgoing?.login ?? "{login}";
  const says = !address ? "" : !known
    ? "This server has no settings for this address. If it serves the address all the same, continue."
    : outgoing ? "" : "The SMTP server of this address is not known. If you leave the fields empty, Delta Chat tries the usual names.";
  $("says").textContent = says;
  $("sending").open = Boolean(address) && !outgoing;
}

$("address").addEventListener("change", () => { looking = lookUp(); });
for (const id of ["password", "smtp-host", "smtp-port", "smtp-security", "smtp-login"]) $(id).addEventListener("input", hide);

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const address = $("address").value.trim();
  // Who is quick, or lets the browser fill in, is not ahead of the look-up.
  await (asked === address ? looking : lookUp());
  const security = $("smtp-security").value;
  const outgoing = {
    host: $("smtp-host").value.trim(), security,
    port: Number($("smtp-port").value) || (security === "ssl" ? 465 : 587), login: $("smtp-login").value.trim() || "{login}",
  };
  const incoming = known?.incoming ?? sealed.incoming;
  const content = link(address, $("password").value, incoming, outgoing, incoming.anyCertificate);
  try {
    draw(content);
  } catch {
    $("says").textContent = "The settings do not fit into a QR code.";
    return;
  }
  $("open").href = content;
  $("code").hidden = false;
  $("code").scrollIntoView();
});
$("clear").addEventListener("click", () => {
  hide();
  $("password").value = "";
});
$("login").hidden = false;
