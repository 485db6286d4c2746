//! docs/configuration.md against what the program takes: the same keys, and the defaults that it really has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use deltapush::config::Config;

/// A key that no section has.
const NOBODY: &str = "no_such_key";

fn parse(yaml: &str) -> Result<Config, String> {
    Config::parse(yaml, Path::new(""), "config.yaml").map_err(|error| error.to_string())
}

/// The keys of the section that `yaml` asks for a key that is not there; `None` if it is no section.
fn keys_of(yaml: &str) -> Option<Vec<String>> {
    let error = parse(yaml).err()?;
    let (_, expected) = error.split_once(&format!("unknown field `{NOBODY}`, expected one of "))?;
    let line = expected.lines().next()?;
    Some(line.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// All keys that hold a value, found out from the program's own refusals. `around` is the configuration up to a section.
fn leaves(path: &str, around: &dyn Fn(&str) -> String, found: &mut Vec<String>) {
    let keys = keys_of(&around(&format!("{{{NOBODY}: 1}}")))
        .unwrap_or_else(|| panic!("{path} is no section"));
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // A section, a list of sections, or sections that have names.
        let forms = [("", "", ""), ("[]", "[", "]"), (".NAME", "{some@example.org: ", "}")];
        let is_section = forms.iter().any(|(suffix, open, close)| {
            let inside = |value: &str| around(&format!("{{{key}: {open}{value}{close}}}"));
            let is_section = keys_of(&inside(&format!("{{{NOBODY}: 1}}"))).is_some();
            if is_section {
                leaves(&format!("{path}{suffix}"), &inside, found);
            }
            is_section
        });
        // One that may be a plain value too has a row of its own for that.
        let is_value = !is_section
            || ["true", "false"]
                .iter()
                .any(|value| parse(&around(&format!("{{{key}: {value}}}"))).is_ok());
        if is_value {
            found.push(path);
        }
    }
}

/// Key and default of each row.
fn documented() -> BTreeMap<String, String> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md"))
            .unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut keys = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(
            cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()),
            "key, default, meaning: {row}"
        );
        let key = cells[0].trim_matches('`').to_owned();
        assert!(keys.insert(key, cells[1].to_owned()).is_none(), "twice: {row}");
    }
    keys
}

#[test]
fn every_key_that_deltapush_takes_is_in_the_reference_and_no_other() {
    let mut taken = Vec::new();
    leaves("", &|section| section.to_owned(), &mut taken);
    assert!(taken.len() > 60, "{taken:?}");
    let documented = documented();
    let missing: Vec<_> = taken.iter().filter(|key| !documented.contains_key(*key)).collect();
    assert!(missing.is_empty(), "docs/configuration.md does not have {missing:?}");
    let too_many: Vec<_> = documented.keys().filter(|key| !taken.contains(key)).collect();
    assert!(
        too_many.is_empty(),
        "docs/configuration.md has {too_many:?}, which deltapush does not take"
    );
}

#[test]
fn reference_has_the_defaults_that_count() {
    let nothing_said = parse("{}").unwrap();
    let mut compared = 0;
    for (key, default) in documented() {
        let Some(value) = default.strip_prefix('`').and_then(|value| value.strip_suffix('`'))
        else {
            continue;
        };
        // Sections that are not there by default have defaults only once they are.
        if key.contains("[]")
            || key.contains("NAME")
            || key.starts_with("trace.")
            || key.starts_with("storage.postgres.")
        {
            continue;
        }
        let yaml =
            key.rsplit('.').fold(value.to_owned(), |inside, name| format!("{{{name}: {inside}}}"));
        assert!(
            parse(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}")) == nothing_said,
            "{key} is not {value}"
        );
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn every_configuration_in_the_documents_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut examples = 0;
    for folder in [root.to_owned(), root.join("docs")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for example in
                text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap())
            {
                // Some show one section only; a public listener wants a route that names a domain.
                let indent: String = example.chars().take_while(|letter| *letter == ' ').collect();
                let routes = format!(
                    "\n{indent}routes: [{{domain: example.org, upstream: imaps://mail.example.org}}]\n"
                );
                let whole = if example.contains("routes:") {
                    example.to_owned()
                } else {
                    format!("{example}{routes}")
                };
                parse(&whole)
                    .unwrap_or_else(|error| panic!("{}: {error}\n{example}", path.display()));
                examples += 1;
            }
        }
    }
    assert!(examples > 8, "{examples}");
}
