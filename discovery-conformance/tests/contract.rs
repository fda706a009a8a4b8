//! The suite against the contract: every statement has a case or a place where it is judged, and the docs say which.

mod docs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use discovery_conformance::{ELSEWHERE, SECTIONS, cases};

/// Every statement, in the contract's order.
fn statements() -> Vec<String> {
    let section = |(name, count): (&str, usize)| (1..=count).map(move |n| format!("{name} {n}")).collect::<Vec<_>>();
    SECTIONS.into_iter().flat_map(section).collect()
}

fn by_statement() -> BTreeMap<String, Vec<&'static str>> {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for case in cases() {
        found.entry(case.statement()).or_default().push(case.name);
    }
    found
}

#[test]
fn every_statement_has_a_case_or_is_judged_elsewhere() {
    let mut found = by_statement();
    for statement in statements() {
        let elsewhere = ELSEWHERE.iter().any(|known| known.statement == statement);
        assert_eq!(found.remove(&statement).is_some(), !elsewhere, "{statement}");
    }
    assert!(found.is_empty(), "cases of statements that the contract does not have: {found:?}");
}

#[test]
fn what_is_judged_elsewhere_is_judged_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for known in ELSEWHERE {
        assert!(!known.proofs.is_empty(), "{}", known.statement);
        for (file, names) in known.proofs {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            for name in *names {
                assert!(text.contains(&format!("fn {name}(")), "{}: no {name} in {file}", known.statement);
            }
        }
    }
}

#[test]
fn the_sections_are_those_of_the_contract() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/contract.md");
    let text = std::fs::read_to_string(path).expect("docs/contract.md");
    let mut counts: Vec<(String, usize)> = Vec::new();
    for line in text.lines() {
        if let Some((name, _)) = line.strip_prefix("## ").and_then(|heading| heading.split_once(':')) {
            counts.push((name.to_owned(), 0));
        } else if let (Some((_, count)), Some((number, _))) = (counts.last_mut(), line.split_once(". "))
            && number.parse() == Ok(*count + 1)
        {
            *count += 1;
        }
    }
    assert_eq!(counts, SECTIONS.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn no_name_comes_twice() {
    let names: BTreeSet<_> = cases().map(|case| case.name).collect();
    assert_eq!(names.len(), cases().count());
}

#[test]
fn the_table_in_the_docs_is_this_one() {
    let found = by_statement();
    let mut table = String::from("| statement | cases |\n|---|---|\n");
    for statement in statements() {
        let text = match found.get(&statement) {
            Some(names) => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" "),
            None => {
                let known = ELSEWHERE.iter().find(|known| known.statement == statement);
                known.map_or_else(String::new, discovery_conformance::Elsewhere::told)
            }
        };
        writeln!(table, "| {statement} | {text} |").expect("a string");
    }
    docs::check("statements", &table);
    let (looked_at, all, cases) = (found.len(), statements().len(), cases().count());
    let elsewhere = ELSEWHERE.len();
    let figures = format!(
        "{cases} cases look at {looked_at} of {all} statements; the other {elsewhere} are judged by the tests that the table \
         names.\n"
    );
    docs::check("figures", &figures);
}
