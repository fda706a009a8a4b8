//! A crate's source as one list of items, its modules inside one another whichever files they come from.

use std::path::Path;

use syn::{Item, ItemMod};

use super::surface::is_skipped;

/// Reads a crate from its root file.
pub(crate) fn read(file: &Path) -> Vec<Item> {
    items(file, file.parent().expect("a file has a folder"))
}

fn items(file: &Path, folder: &Path) -> Vec<Item> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    filled(parsed.items, folder)
}

/// The same items, with those of modules that `folder` holds put into them.
fn filled(mut items: Vec<Item>, folder: &Path) -> Vec<Item> {
    items.retain(|item| !matches!(item, Item::Mod(module) if is_skipped(&module.attrs)));
    for item in &mut items {
        if let Item::Mod(module) = item {
            fill(module, folder);
        }
    }
    items
}

fn fill(module: &mut ItemMod, folder: &Path) {
    assert!(!module.attrs.iter().any(|attribute| attribute.path().is_ident("path")), "#[path] is not understood here");
    let inner = folder.join(module.ident.to_string());
    let (brace, found) = match module.content.take() {
        Some((brace, found)) => (brace, filled(found, &inner)),
        None => {
            let file = inner.with_extension("rs");
            let file = if file.exists() { file } else { inner.join("mod.rs") };
            (Default::default(), items(&file, &inner))
        }
    };
    module.content = Some((brace, found));
}
