//! The page shows these files as they are.

use std::fs;
use std::path::Path;

/// The block below the line that names the file.
fn block<'a>(page: &'a str, file: &str) -> &'a str {
    let (_, below) = page.split_once(&format!("\n`{file}`:\n\n```rust")).expect("the file's block");
    let (_, code) = below.split_once('\n').expect("its first line");
    let (code, _) = code.split_once("```\n").expect("its end");
    code
}

#[test]
fn what_is_copied_from_the_page_is_what_is_tested_here() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/writing-a-backend.md")).expect("the page");
    for file in ["src/lib.rs", "tests/use.rs", "tests/conformance.rs"] {
        let tested = fs::read_to_string(here.join(file)).expect("a file");
        // The page is compiled from here, too.
        let tested = tested.split("\n/// The examples of the page").next().expect("a part");
        assert_eq!(block(&page, file).trim_end(), tested.trim_end(), "{file}");
    }
}
