//! Tables in `docs/conformance.md` that tests generate.

use std::path::Path;

/// Compares the part between `<!-- name -->` and `<!-- /name -->` with `expected`; `CONFORMANCE_BLESS=1` writes it anew.
pub(crate) fn check(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let text = std::fs::read_to_string(&path).expect("docs/conformance.md");
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&open).expect("the table's start") + open.len();
    let end = start + text[start..].find(&close).expect("the table's end");
    if text[start..end] == *expected {
        return;
    }
    assert_eq!(
        std::env::var("CONFORMANCE_BLESS").as_deref(),
        Ok("1"),
        "the table {name} in docs/conformance.md is old: CONFORMANCE_BLESS=1 cargo test -p discovery-conformance"
    );
    std::fs::write(&path, format!("{}{expected}{}", &text[..start], &text[end..])).expect("docs/conformance.md");
}
