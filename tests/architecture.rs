//! The borders between modules: what ARCHITECTURE.md says of them is what the code does.
//!
//! Each row of its table "Layers" has modules of `src/`, and the modules that these may use. Each row of its table "Machines", and of
//! "Codecs, tables and functions" in docs/architecture-of-a-session.md, begins with a module of protocol logic, which knows no
//! runtime, no socket, no clock, no configuration file. Machines have the contract of `src/machine.rs`; nothing else has it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a border that is crossed ends the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Paths that no machine may name. `tokio` stands for all crates of its family.
const BANNED_IN_MACHINES: [&str; 8] = [
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "serde",
    "crate::config",
    "Instant::now",
    "SystemTime::now",
];

/// The paths that a source file names outside of its tests, as they stand there, `use` trees taken apart.
#[derive(Default)]
struct Paths(BTreeSet<String>);

impl Paths {
    fn of(file: &Path) -> BTreeSet<String> {
        let source = fs::read_to_string(file).unwrap();
        let file =
            syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut paths = Self::default();
        paths.visit_file(&file);
        paths.0
    }

    fn take_tree(&mut self, before: &str, tree: &syn::UseTree) {
        let path = match tree {
            syn::UseTree::Path(path) => {
                return self.take_tree(&join(before, &path.ident.to_string()), &path.tree);
            }
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.take_tree(before, tree));
            }
            syn::UseTree::Name(name) => join(before, &name.ident.to_string()),
            syn::UseTree::Rename(name) => join(before, &name.ident.to_string()),
            syn::UseTree::Glob(_) => before.to_owned(),
        };
        self.0.insert(path);
    }
}

fn join(before: &str, name: &str) -> String {
    if before.is_empty() { name.to_owned() } else { format!("{before}::{name}") }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = attribute
            .path()
            .is_ident("cfg")
            .then(|| attribute.parse_args::<syn::Path>().ok())
            .flatten();
        condition.is_some_and(|condition| condition.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.take_tree("", &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.0.insert(segments.join("::"));
        visit::visit_path(self, path);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files of a module, its tests left out.
fn files_of(module: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = Vec::new();
    let file = module.with_extension("rs");
    if file.is_file() {
        files.push(file);
    }
    if module.is_dir() {
        folders.push(module.to_owned());
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_tests = name == "tests" || name == "testing" || name.ends_with("_tests");
            if path.is_dir() && !is_tests {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_tests {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{} is no module", module.display());
    files
}

/// A document and a heading in it that has a table below.
type Table = (&'static str, &'static str);

const LAYERS: Table = ("ARCHITECTURE.md", "Layers");
const MACHINES: Table = ("ARCHITECTURE.md", "Machines");
const CODECS: Table = ("docs/architecture-of-a-session.md", "Codecs, tables and functions");

/// The rows of a table: in each, the words in backticks of its cells.
fn table((document, heading): Table) -> Vec<Vec<Vec<String>>> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let (_, section) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading:?}"));
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.map(|row| row.trim_matches('|').split(" | ").map(quoted).collect()).collect()
}

/// The modules of `src/` that the rows of "Layers" name, with those that they may use: the modules of all rows below, and those that the
/// last cell names.
fn layers() -> BTreeMap<String, BTreeSet<String>> {
    let mut layers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table(LAYERS).into_iter().rev() {
        let [_, modules, own] = row.as_slice() else {
            panic!("a row of \"Layers\" has three cells: {row:?}")
        };
        let below: BTreeSet<String> = layers.keys().cloned().collect();
        for module in modules {
            let before = layers.insert(module.clone(), below.clone());
            assert!(before.is_none(), "{module} stands in two rows");
        }
        for pair in own.chunks(2) {
            let [module, used] = pair else { panic!("`a` uses `b`, and `a` uses `c`: {own:?}") };
            assert!(
                modules.contains(module) && modules.contains(used),
                "{pair:?} are not both of {modules:?}"
            );
            layers.entry(module.clone()).or_default().insert(used.clone());
        }
    }
    layers
}

#[test]
fn modules_use_only_what_their_layer_may() {
    let layers = layers();
    let mut modules = BTreeSet::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        if name != "lib" && !name.ends_with("_tests") {
            modules.insert(name);
        }
    }
    assert_eq!(
        modules,
        layers.keys().cloned().collect(),
        "src/ on the left, the table \"Layers\" on the right"
    );
    let mut crossings = Vec::new();
    for (module, allowed) in &layers {
        for file in files_of(&root().join("src").join(module)) {
            for path in Paths::of(&file) {
                let used = path
                    .strip_prefix("crate::")
                    .or_else(|| path.strip_prefix("deltapush::").filter(|_| module == "main"));
                let used = used
                    .and_then(|path| path.split("::").next())
                    .filter(|used| modules.contains(*used));
                if let Some(used) = used.filter(|used| *used != module && !allowed.contains(*used))
                {
                    crossings
                        .push(format!("{}: {module} may not use {used} ({path})", file.display()));
                }
            }
        }
    }
    assert!(crossings.is_empty(), "{crossings:#?}");
}

#[test]
fn layers_make_no_circle() {
    let mut left = layers();
    while !left.is_empty() {
        let bottom: Vec<String> = left
            .iter()
            .filter(|(_, uses)| uses.iter().all(|used| !left.contains_key(used)))
            .map(|(name, _)| name.clone())
            .collect();
        assert!(!bottom.is_empty(), "these use each other: {left:#?}");
        left.retain(|module, _| !bottom.contains(module));
    }
}

/// The modules that the first cells of a table name.
fn first_cells(of: Table) -> Vec<String> {
    table(of).into_iter().flat_map(|row| row.into_iter().next().unwrap_or_default()).collect()
}

fn path_of(module: &str) -> PathBuf {
    module.split("::").fold(root().join("src"), |path, name| path.join(name))
}

#[test]
fn machines_know_no_runtime_no_clock_and_no_configuration() {
    let mut crossings = Vec::new();
    let modules = [first_cells(MACHINES), first_cells(CODECS)].concat();
    assert!(modules.len() >= 15, "only {} were found in the tables", modules.len());
    for module in modules {
        for file in files_of(&path_of(&module)) {
            let paths = Paths::of(&file);
            let banned = |path: &str| {
                let first = path.split("::").next().unwrap_or_default();
                // tokio-rustls hands rustls on, which knows no runtime.
                first.starts_with("tokio") && !path.starts_with("tokio_rustls::rustls::")
                    || BANNED_IN_MACHINES.iter().any(|banned| {
                        path == *banned
                            || path.starts_with(&format!("{banned}::"))
                            || path.ends_with(&format!("::{banned}"))
                    })
            };
            crossings.extend(
                paths
                    .iter()
                    .filter(|path| banned(path))
                    .map(|path| format!("{}: {path}", file.display())),
            );
        }
    }
    assert!(crossings.is_empty(), "{crossings:#?}");
}

/// The files outside of tests that implement the contract of all machines.
fn implementations() -> BTreeSet<PathBuf> {
    let is_contract = |item: &syn::Item| {
        let syn::Item::Impl(item) = item else { return false };
        item.trait_.as_ref().is_some_and(|(path, _)| path.is_ident("Machine"))
    };
    let mut found = BTreeSet::new();
    for module in layers().keys() {
        for file in files_of(&root().join("src").join(module)) {
            let parsed = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
            if parsed.items.iter().any(is_contract) {
                found.insert(file);
            }
        }
    }
    found
}

#[test]
fn machines_have_one_contract() {
    let mut left = implementations();
    for machine in first_cells(MACHINES) {
        let files: BTreeSet<PathBuf> = files_of(&path_of(&machine)).into_iter().collect();
        let count = left.intersection(&files).count();
        assert!(count == 1, "{machine} has {count} impls of `Machine`");
        left.retain(|file| !files.contains(file));
    }
    assert!(left.is_empty(), "not in the table \"Machines\": {left:?}");
}
