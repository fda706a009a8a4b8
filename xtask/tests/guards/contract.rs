//! The statements of `docs/contract.md` keep their ids.

use std::collections::BTreeMap;

use crate::workspace::read;

const STATEMENTS: &[(&str, usize)] =
    &[("REG", 15), ("LIV", 11), ("WAT", 8), ("ORD", 10), ("FLT", 17), ("CON", 7), ("KEY", 7), ("RDY", 5), ("WIRE", 3)];

#[test]
fn every_statement_is_there_once_and_in_order() {
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut section = None;
    for line in read("docs/contract.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.split_once(':').map(|(name, _)| name.to_owned());
        } else if let (Some(section), Some(number)) = (&section, number(line)) {
            found.entry(section.clone()).or_default().push(number);
        }
    }
    let expected = STATEMENTS.iter().map(|&(name, count)| (name.to_owned(), (1..=count).collect())).collect();
    assert_eq!(found, expected, "an id is for ever: add statements at the end, and say so in {}", file!());
}

fn number(line: &str) -> Option<usize> {
    line.split_once(". ")?.0.parse().ok()
}
