//! Configurations and commands of the documents, as the page has them.

/// A page of the documents.
pub(crate) struct Page(pub(crate) &'static str);

const RECIPES: Page = Page(include_str!("../../../docs/recipes.md"));

impl Page {
    /// The blocks of code in a section, by its heading, each as its language and text.
    pub(crate) fn blocks(&self, section: &str) -> Vec<(&'static str, &'static str)> {
        let heading = format!("\n## {section}\n");
        let (_, text) =
            self.0.split_once(&heading).unwrap_or_else(|| panic!("no section {section:?}"));
        let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
        // Every second part is inside of a fence.
        let inside = text.split("```").skip(1).step_by(2);
        inside.map(|block| block.split_once('\n').unwrap()).collect()
    }

    /// The block of this language in which these words are.
    pub(crate) fn block(&self, section: &str, language: &str, words: &str) -> &'static str {
        let blocks = self.blocks(section).into_iter();
        let mut found = blocks.filter(|(its, text)| *its == language && text.contains(words));
        let one = found.next().map(|(_, text)| text);
        assert!(found.next().is_none(), "{section:?}: more than one block with {words:?}");
        one.unwrap_or_else(|| panic!("{section:?}: no block of {language} with {words:?}"))
    }
}

/// The block of docs/recipes.md of this language in which these words are.
pub(crate) fn block(section: &str, language: &str, words: &str) -> &'static str {
    RECIPES.block(section, language, words)
}

/// The routes of a configuration of the page.
pub(crate) fn routes(section: &str) -> String {
    routes_of(block(section, "yaml", "\nroutes:\n"))
}

/// The routes of a configuration.
pub(crate) fn routes_of(configuration: &str) -> String {
    let (_, below) = configuration.split_once("\nroutes:\n").unwrap();
    let indented = |line: &&str| line.starts_with(char::is_whitespace);
    below.split_inclusive('\n').take_while(indented).collect()
}

/// The text with other names of servers, ports and files, each of which must be there.
pub(crate) fn replaced(text: &str, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(text.to_owned(), |text, (page, test)| {
        assert!(text.contains(page), "no {page:?} in the page: {text}");
        text.replace(page, test)
    })
}
