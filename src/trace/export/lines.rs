//! Blanking a line of IMAP: word by word, string by string.

use super::address;
use super::names::{Names, SHORTEST_NUMBER};
use super::vocabulary::{is_date, is_harmless, is_harmless_string};

/// The position of a line in a response: a literal splits it.
#[derive(Debug, Default)]
pub(super) struct LinePosition {
    has_begun: bool,
    /// In a list of capabilities, which are nobody's names.
    capabilities: bool,
    /// In the text of a status response or a note, or in a list of mailboxes: a long number there is no UID or size.
    prose: bool,
    /// In the response code before such a text.
    code: bool,
    /// The next word names the response code.
    code_begins: bool,
    /// The number of words between here and a string or a mailbox, which may consist of digits.
    string_after: Option<usize>,
    /// The number of words so far, up to three.
    words: usize,
    depth: usize,
    /// ENVELOPE was the last word.
    envelope_follows: bool,
    /// The depth of the ENVELOPE's own parentheses, and which of their fields is next.
    envelope: Option<(usize, usize)>,
    /// The field of an address in it that is next.
    address: usize,
    /// The last string was `version`: what follows is no address of the network, even if it looks like one.
    version: bool,
}

/// Words that a string or a mailbox follows: search keys and commands.
const STRING_NEXT: [&str; 16] = [
    "FROM",
    "TO",
    "CC",
    "BCC",
    "SUBJECT",
    "TEXT",
    "BODY",
    "KEYWORD",
    "STATUS",
    "SELECT",
    "EXAMINE",
    "CREATE",
    "DELETE",
    "RENAME",
    "SUBSCRIBE",
    "APPEND",
];
/// Words that a string or a mailbox follows after another word.
const STRING_AFTER_NEXT: [&str; 3] = ["HEADER", "COPY", "MOVE"];

/// The role of a string, if its place determines it.
enum StringRole {
    Anywhere,
    Date,
    Subject,
    Mailbox,
    Host,
    /// In an ENVELOPE, whatever else.
    Envelope,
}

impl LinePosition {
    /// A field of an ENVELOPE goes by.
    pub(super) fn field(&mut self) {
        let depth = self.depth;
        match &mut self.envelope {
            Some((own, field)) if *own == depth => *field = field.saturating_add(1),
            Some(_) => self.address = self.address.saturating_add(1),
            None => {}
        }
    }

    fn open(&mut self) {
        self.depth = self.depth.saturating_add(1);
        if std::mem::take(&mut self.envelope_follows) {
            self.envelope = Some((self.depth, 0));
        }
        self.address = 0;
    }

    fn close(&mut self) {
        if self.envelope.is_some_and(|(own, _)| own == self.depth) {
            self.envelope = None;
        }
        self.depth = self.depth.saturating_sub(1);
        // A list of addresses is a field.
        if self.envelope.is_some_and(|(own, _)| own == self.depth) {
            self.field();
        }
    }

    /// A word goes by.
    fn word(&mut self, word: &str) {
        let is = |known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(word));
        self.words = self.words.saturating_add(1).min(3);
        self.string_after = match self.string_after {
            Some(between) if between > 0 => between.checked_sub(1),
            _ if is(&STRING_NEXT) => Some(0),
            _ if is(&STRING_AFTER_NEXT) => Some(1),
            _ => None,
        };
        // A list of capabilities begins a response or a response code: elsewhere it is a word like others.
        let is_code = std::mem::take(&mut self.code_begins);
        self.capabilities |= is(&["CAPABILITY"]) && (is_code || self.words == 2 && !self.prose);
        self.prose |= self.words <= 2
            && (is(&["OK", "NO", "BAD", "BYE", "PREAUTH", "LIST", "LSUB"]) || word == "+");
    }

    /// A delimiter goes by.
    fn delimiter(&mut self, delimiter: char) {
        self.code_begins = false;
        match delimiter {
            '(' => self.open(),
            ')' => self.close(),
            '[' if self.prose && self.words == 2 && self.has_begun => {
                (self.code, self.code_begins) = (true, true);
            }
            ']' => (self.capabilities, self.code) = (false, false),
            _ => {}
        }
        if delimiter != ' ' {
            self.string_after = None;
        }
    }

    /// Reports if the word is a number that may be somebody's: too long for its place, or with a zero in front.
    fn is_long_number_of_a_person(&self, word: &str) -> bool {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        // A response code begins with a name.
        let is_in_code = self.code && self.words > 2;
        let is_elsewhere = self.prose && !is_in_code || self.string_after == Some(0);
        is_number
            && digits >= SHORTEST_NUMBER
            && !is_address(word.trim_end_matches('.'))
            && (is_elsewhere || is_digits(word) && word.starts_with('0'))
    }

    fn place(&self) -> StringRole {
        match self.envelope {
            None => StringRole::Anywhere,
            Some((own, 0)) if own == self.depth => StringRole::Date,
            Some((own, 1)) if own == self.depth => StringRole::Subject,
            Some((own, _)) if own == self.depth => StringRole::Envelope,
            Some(_) if self.address == 2 => StringRole::Mailbox,
            Some(_) if self.address == 3 => StringRole::Host,
            Some(_) => StringRole::Envelope,
        }
    }
}

/// A line, or what of it stands between a literal and the next, blanked.
pub(super) fn blank(names: &mut Names, context: &mut LinePosition, text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    let mut rest = &*text;
    while let Some(first) = rest.chars().next() {
        let (piece, after) = match first {
            '"' => {
                let (content, after) = quoted(rest);
                let closed = if after.is_some() { "\"" } else { "" };
                out.push('"');
                let is_version = std::mem::replace(
                    &mut context.version,
                    content.eq_ignore_ascii_case("version"),
                );
                if is_version && content.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                    out.push_str(content);
                } else {
                    out.push_str(&blank_string(names, &context.place(), content));
                }
                out.push_str(closed);
                context.field();
                context.code_begins = false;
                rest = after.unwrap_or_default();
                continue;
            }
            _ if is_delimiter(first) => rest.split_at(first.len_utf8()),
            _ => rest.split_at(rest.find(is_delimiter).unwrap_or(rest.len())),
        };
        rest = after;
        if is_delimiter(first) {
            context.delimiter(first);
            out.push_str(piece);
            continue;
        }
        let is_first = !std::mem::replace(&mut context.has_begun, true);
        let is_tag = is_first && is_tag(piece) && names.known(piece).is_none();
        let is_capability = context.capabilities && is_capability(piece);
        context.envelope_follows = piece.eq_ignore_ascii_case("ENVELOPE");
        context.field();
        if is_tag || is_capability && names.known(piece).is_none() {
            out.push_str(piece);
        } else if context.is_long_number_of_a_person(piece) {
            out.push_str(&names.word(piece));
        } else {
            push_word(&mut out, names, piece, true);
        }
        context.word(piece);
    }
    out.into_bytes()
}

/// An event in deltapush's own words.
pub(super) fn blank_note(names: &mut Names, words: &str) -> String {
    // No word of it is a tag.
    let mut context =
        LinePosition { has_begun: true, prose: true, words: 3, ..LinePosition::default() };
    String::from_utf8_lossy(&blank(names, &mut context, words.as_bytes())).into_owned()
}

/// Text of which no word is taken for harmless, such as a display name.
pub(super) fn blank_strictly(names: &mut Names, text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_split = |character| is_delimiter(character) && character != '=';
        let end = if is_split(first) {
            first.len_utf8()
        } else {
            rest.find(is_split).unwrap_or(rest.len())
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        if is_split(first) { out.push_str(piece) } else { push_word(&mut out, names, piece, false) }
    }
    out
}

fn is_delimiter(character: char) -> bool {
    matches!(
        character,
        ' ' | '('
            | ')'
            | '['
            | ']'
            | '<'
            | '>'
            | '{'
            | '}'
            | '"'
            | ','
            | ';'
            | '='
            | '\t'
            | '\r'
            | '\n'
    )
}

/// A name of a capability, which is nobody's: no address, and no number of a person.
fn is_capability(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    !word.contains(['@', '.', ':']) && digits < SHORTEST_NUMBER
}

/// A tag, or another word that may begin a line and is of the client's making.
fn is_tag(word: &str) -> bool {
    let is_of_letters =
        || word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
    ["*", "+"].contains(&word)
        || word.len() <= 24 && is_of_letters() && !is_host(word) && !is_address(word)
}

/// The content of the quoted string that `text` begins with, and what follows its end, if it has one.
fn quoted(text: &str) -> (&str, Option<&str>) {
    let inner = text.get(1..).unwrap_or_default();
    let mut escaped = false;
    for (index, character) in inner.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                return (
                    inner.get(..index).unwrap_or_default(),
                    inner.get(index.saturating_add(1)..),
                );
            }
            _ => {}
        }
    }
    (inner, None)
}

fn blank_string(names: &mut Names, place: &StringRole, content: &str) -> String {
    match place {
        _ if content.is_empty() => String::new(),
        StringRole::Mailbox => names.user(content),
        StringRole::Host => names.host(content),
        StringRole::Date if is_date(content) => content.to_owned(),
        StringRole::Anywhere if is_harmless_string(content) || is_date(content) => {
            content.to_owned()
        }
        StringRole::Anywhere | StringRole::Envelope | StringRole::Date
            if content.contains('@') && !content.contains(' ') =>
        {
            let inner = content.trim_start_matches('<').trim_end_matches('>');
            let (before, after) = if inner == content { ("", "") } else { ("<", ">") };
            format!("{before}{}{after}", names.login(inner))
        }
        StringRole::Anywhere if is_host(content) || is_address(content) => names.host(content),
        StringRole::Anywhere => match below_inbox(content) {
            Some((inbox, name)) => format!("{inbox}{}", word_for_string(names, name)),
            None => word_for_string(names, content),
        },
        _ => word_for_string(names, content),
    }
}

/// The mailbox INBOX with its separator, and what a mailbox below it is called.
fn below_inbox(content: &str) -> Option<(&str, &str)> {
    let end = content.find(['/', '.'])?;
    let (inbox, name) = content.split_at_checked(end.checked_add(1)?)?;
    (inbox.get(..end)?.eq_ignore_ascii_case("INBOX") && !name.is_empty()).then_some((inbox, name))
}

/// A word in place of a string, with what made that need its quotes: it may be what a report is about.
fn word_for_string(names: &mut Names, content: &str) -> String {
    let mut word = names.word(content);
    for (mark, shown) in [("\\\"", "\\\""), ("\\\\", "\\\\"), ("{", "{5}"), (")", ")"), ("(", "(")]
    {
        if content.contains(mark) {
            word.push_str(shown);
        }
    }
    if !content.is_ascii() {
        word.push('é');
    }
    word
}

/// A word, with what it needs to be told apart from another.
fn push_word(out: &mut String, names: &mut Names, word: &str, vocabulary: bool) {
    let core = word.trim_end_matches(['.', ':', '!', '?', '\'']);
    let core = core.strip_suffix("'s").unwrap_or(core);
    let (core, tail) = word.split_at(core.len());
    let lead = core.len().saturating_sub(core.trim_start_matches(['\'', '`']).len());
    let (lead, core) = core.split_at(lead);
    out.push_str(lead);
    match names.known(core).filter(|_| !(vocabulary && is_protocol(core))) {
        Some(name) => out.push_str(&name),
        None => push_core(out, names, core, vocabulary),
    }
    out.push_str(tail);
}

/// In capital letters a word of the protocol is one even if somebody is called so.
fn is_protocol(word: &str) -> bool {
    is_harmless(word) && !word.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn push_core(out: &mut String, names: &mut Names, word: &str, vocabulary: bool) {
    if word.is_empty() || vocabulary && is_harmless(word) {
        return out.push_str(word);
    }
    if word.contains('@') {
        return out.push_str(&names.login(word));
    }
    // An address of IPv6 may look like a shorter one with a port.
    if is_address(word) || is_host(word) {
        return out.push_str(&names.host(word));
    }
    if let Some((host, port)) =
        address::with_port(word).filter(|(host, _)| is_address(host) || is_host(host))
    {
        return out.push_str(&format!("{}:{port}", names.host(host)));
    }
    if is_punctuation(word) || vocabulary && is_numbers_of_the_protocol(word) {
        return out.push_str(word);
    }
    let separators = ['/', '.', '-', '_', ':', '|', '\\', '$', '&', '%', '*', '+'];
    if !word.contains(separators) {
        return out.push_str(&names.word(word));
    }
    // Flags, paths, names of mailboxes: each part for itself.
    for part in word.split_inclusive(separators) {
        let (name, separator) = match part.char_indices().next_back() {
            Some((end, last)) if separators.contains(&last) => part.split_at(end),
            _ => (part, ""),
        };
        if name.is_empty() || vocabulary && is_harmless(name) {
            out.push_str(name);
        } else {
            out.push_str(&names.word(name));
        }
        out.push_str(separator);
    }
}

/// An address of the network.
fn is_address(word: &str) -> bool {
    address::parse(word).is_some()
}

/// Numbers as they stand in the protocol: UIDs and their ranges, sizes, times, dates, zones, versions, parts of a message. Numbers
/// that are written otherwise, with hyphens or slashes for example, may be an address or a telephone number.
fn is_numbers_of_the_protocol(word: &str) -> bool {
    let is_of =
        |others: &[u8]| word.bytes().all(|byte| byte.is_ascii_digit() || others.contains(&byte));
    let is_zone = || word.len() == 5 && word.strip_prefix(['+', '-']).is_some_and(is_digits);
    let is_part = || {
        let (numbers, name) = word.rsplit_once('.').unwrap_or_default();
        ["MIME", "HEADER", "TEXT"].contains(&name) && numbers.split('.').all(is_digits)
    };
    is_of(b",:*") || is_of(b".") || is_of(b"%") || is_zone() || is_date(word) || is_part()
}

fn is_punctuation(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_punctuation())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A name of a host: labels with dots, the last of letters; no mailbox below INBOX and no part of a message.
fn is_host(word: &str) -> bool {
    let labels: Vec<&str> = word.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty()
            && label
                .chars()
                .all(|character| character.is_alphanumeric() || "-_".contains(character))
    };
    let ends_as_one = labels
        .last()
        .is_some_and(|last| last.len() > 1 && !last.bytes().any(|byte| byte.is_ascii_digit()));
    let first = labels.first().copied().unwrap_or_default();
    let is_section = first.bytes().all(|byte| byte.is_ascii_digit())
        && labels.last().is_some_and(|last| ["MIME", "HEADER", "TEXT"].contains(last));
    labels.len() > 1
        && labels.iter().all(is_label)
        && ends_as_one
        && !is_section
        && !is_harmless(word)
        && !first.eq_ignore_ascii_case("INBOX")
}
