//! `http::news::formats`: any body is read in bounded memory, as news of somebody or not at all; a name written in any form is read
//! as the same.

use deltapush::http::news::formats::{self, MAX_NEWS};

pub(crate) fn check(data: &[u8]) {
    match formats::read(data) {
        Ok(news) => {
            assert!(news.len() <= MAX_NEWS);
            assert!(news.iter().all(|news| !news.name.is_empty()));
            let told: usize = news.iter().map(|news| news.name.len() + news.mailbox.len()).sum();
            // An escape is longer than what it stands for, and no name is repeated.
            assert!(told <= data.len().saturating_mul(3), "{told} of {}", data.len());
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
    if let Ok(name) = std::str::from_utf8(data) {
        name_is_read_as_written(name);
    }
}

fn name_is_read_as_written(name: &str) {
    let text = serde_json_string(name);
    for body in [
        format!("{{\"name\":{text}}}"),
        format!(
            "{{\"user\":{text},\"event\":\"messageNew\",\"folder\":\"INBOX\",\"imap-uid\":1,\"imap-uidvalidity\":1}}"
        ),
        format!("{{\"Meta\":{{\"RcptTo\":{text}}}}}"),
        format!(
            "{{\"events\":[{{\"type\":\"message-ingest.ham\",\"data\":{{\"to\":[{text}],\"mailboxId\":[0]}}}}]}}"
        ),
    ] {
        let read = formats::read(body.as_bytes());
        if name.is_empty() {
            assert!(read.is_err() || read == Ok(Vec::new()), "{body}");
            continue;
        }
        let news = read.unwrap_or_else(|problem| panic!("{problem}: {body}"));
        assert!(news.len() == 1 && news.iter().all(|news| news.name == name), "{body}");
    }
}

/// A JSON string (RFC 8259 section 7).
fn serde_json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\0'..='\x1f' => json.push_str(&format!("\\u{:04x}", u32::from(char))),
            _ => json.push(char),
        }
    }
    json.push('"');
    json
}
