//! Blanking of message headers in literals of a trace: fields that a watch reads stay, names of people do not. Any
//! other literal is left out as a whole.

use super::lines::blank_strictly;
use super::names::Names;
use super::vocabulary::is_date;

/// Fields whose names are no secret.
const FIELDS: [&str; 26] = [
    "From",
    "To",
    "Cc",
    "Bcc",
    "Reply-To",
    "Sender",
    "Return-Path",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Received",
    "Auto-Submitted",
    "Precedence",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "List-ID",
    "List-Unsubscribe",
    "Chat-Version",
    "Chat-Group-ID",
    "Chat-Disposition-Notification-To",
    "Autocrypt",
    "DKIM-Signature",
];

/// Fields whose values are taken from a list.
const FIXED: [&str; 5] =
    ["Auto-Submitted", "Precedence", "MIME-Version", "Content-Transfer-Encoding", "Chat-Version"];

/// These values.
const FIXED_VALUES: [&str; 14] = [
    "no",
    "auto-generated",
    "auto-replied",
    "auto-notified",
    "bulk",
    "list",
    "junk",
    "1.0",
    "7bit",
    "8bit",
    "binary",
    "quoted-printable",
    "base64",
    "first-class",
];

/// The kind of a field's value.
#[derive(Clone, Copy)]
enum ShownField {
    Date,
    Fixed,
    Other,
}

/// A header without names; `None` if these bytes are none.
pub(super) fn blank(names: &mut Names, bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut out = String::new();
    let mut field = ShownField::Other;
    let mut lines = text.split_inclusive("\r\n");
    for line in &mut lines {
        let (content, end) =
            line.strip_suffix("\r\n").map_or((line, ""), |content| (content, "\r\n"));
        if content.is_empty() {
            out.push_str(end);
            // Lines after the empty one are the message itself.
            return lines.next().is_none().then(|| out.into_bytes());
        }
        if content.starts_with([' ', '\t']) && !out.is_empty() {
            out.push_str(&value(names, content, field));
        } else {
            let (name, rest) = content.split_once(':')?;
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            let is = |known: &&str| is_name && known.eq_ignore_ascii_case(name);
            field = match () {
                () if is(&"Date") => ShownField::Date,
                () if FIXED.iter().any(is) => ShownField::Fixed,
                () => ShownField::Other,
            };
            match FIELDS.iter().any(is) {
                true => out.push_str(name),
                false if is_name => out.push_str(&format!("X-{}", names.word(name))),
                false => return None,
            }
            out.push(':');
            out.push_str(&value(names, rest, field));
        }
        out.push_str(end);
    }
    (!out.is_empty()).then(|| out.into_bytes())
}

fn value(names: &mut Names, value: &str, field: ShownField) -> String {
    let is_shown = match field {
        ShownField::Date => is_date(value.trim()),
        ShownField::Fixed => {
            let mut words = value.split([' ', '\t', ';']).filter(|word| !word.is_empty());
            words.all(|word| FIXED_VALUES.iter().any(|known| known.eq_ignore_ascii_case(word)))
        }
        ShownField::Other => false,
    };
    if is_shown { value.to_owned() } else { blank_strictly(names, value) }
}
