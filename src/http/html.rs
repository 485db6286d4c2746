//! The HTML document around the content of all pages. maud escapes all inserted text.

use hyper::StatusCode;
use maud::{DOCTYPE, Markup, html};

/// The parts of a page.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    /// Further elements of the document's head.
    pub(super) head: Option<Markup>,
    /// For text and forms; otherwise it is as wide as tables and plots need.
    pub(super) is_narrow: bool,
    pub(super) header: Markup,
    pub(super) main: &'a Markup,
    pub(super) footer: Option<Markup>,
}

/// The document, with one landmark of each kind.
pub(super) fn document(page: &Page<'_>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Before the style sheet is there: no white flash in dark mode.
                meta name="color-scheme" content="light dark";
                title { (page.title) }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
                @if let Some(head) = &page.head { (head) }
            }
            body.narrow[page.is_narrow] {
                header { (page.header) }
                main { (page.main) }
                @if let Some(footer) = &page.footer { footer { (footer) } }
            }
        }
    }
}

/// An error in one sentence. Without host name and version: it is also for visitors without a password.
pub(super) fn error(status: StatusCode, sentence: &str) -> Markup {
    let main = html! {
        p.state.warn { (sentence) }
        p { a href="/" { "Start page" } }
    };
    document(&Page {
        title: &status.to_string(),
        head: None,
        is_narrow: true,
        header: html! { h1 { (status.canonical_reason().unwrap_or("Error")) } },
        main: &main,
        footer: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_page_escapes_its_sentence_and_has_one_main() {
        let text = error(StatusCode::NOT_FOUND, "a <b> & c").into_string();
        assert!(text.contains("<title>404 Not Found</title>"), "{text}");
        assert!(
            text.contains("<h1>Not Found</h1>") && text.contains("a &lt;b&gt; &amp; c"),
            "{text}"
        );
        assert_eq!(text.matches("<main>").count(), 1, "{text}");
        assert!(
            text.contains("name=\"color-scheme\"") && text.contains("class=\"narrow\""),
            "{text}"
        );
    }
}
