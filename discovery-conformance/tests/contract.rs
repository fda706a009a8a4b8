//! The suite against the contract: every statement has a case or a place where it is judged, and the docs say which.

mod docs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use discovery_conformance::{ELSEWHERE, SECTIONS, cases, history};

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

/// What keeps a function of this name from being a judge, where something does.
fn no_judge(text: &str, name: &str, is_test: bool) -> Option<&'static str> {
    let lines: Vec<_> = text.lines().collect();
    let Some(at) = lines.iter().position(|line| line.contains(&format!("fn {name}("))) else { return Some("missing") };
    let attributes = lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with(['#', '/']));
    let attributes: Vec<_> = attributes.filter(|line| line.starts_with('#')).collect();
    let tests = attributes.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
    let indent = lines[at].len() - lines[at].trim_start().len();
    let end = format!("{}}}", " ".repeat(indent));
    let body: Vec<_> = lines[at + 1..].iter().take_while(|line| **line != end).collect();
    if attributes.iter().any(|line| line.contains("ignore")) {
        return Some("ignored");
    }
    if is_test && !tests {
        return Some("no test");
    }
    let judges = ["assert", "Finding::", "expect(", "unwrap", "?;", ".await"];
    (!body.iter().any(|line| judges.iter().any(|word| line.contains(word)))).then_some("empty")
}

#[test]
fn what_is_judged_elsewhere_is_judged_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for known in ELSEWHERE {
        assert!(!known.proofs.is_empty(), "{}", known.statement);
        for (file, names) in known.proofs {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            // Those beside the reference are no tests of Cargo's: a table of `cargo xtask peers` runs them.
            let peers = file.starts_with("peers/");
            for name in *names {
                let why = no_judge(&text, name, !peers);
                assert_eq!(why, None, "{}: {name} in {file}", known.statement);
                if peers {
                    let module =
                        std::path::Path::new(file).file_stem().and_then(|stem| stem.to_str()).expect("a module");
                    let table = root.join("peers/compare/src/interop.rs");
                    let table = std::fs::read_to_string(table).expect("the table of the scenarios");
                    assert!(
                        table.contains(&format!("{module}::{name}(")),
                        "{}: {file}: nothing runs {name}",
                        known.statement
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_ignored_or_says_nothing_is_no_judge() {
    let test = |attributes: &str, body: &str| format!("/// Says.\n{attributes}\nfn holds() {{\n{body}}}\n");
    let judged = "    assert!(true);\n";
    assert_eq!(no_judge(&test("#[test]", judged), "holds", true), None);
    assert_eq!(no_judge(&test("#[tokio::test(flavor = \"multi_thread\")]", judged), "holds", true), None);
    assert_eq!(no_judge(&test("#[test]", judged), "other", true), Some("missing"));
    assert_eq!(no_judge(&test("", judged), "holds", true), Some("no test"));
    let left_out = format!("#[test]\n#[{} = \"later\"]", "ignore");
    assert_eq!(no_judge(&test(&left_out, judged), "holds", true), Some("ignored"));
    assert_eq!(no_judge(&test("#[test]", ""), "holds", true), Some("empty"));
}

/// A statement of these sections has a validator, or a reason for having none; never both.
#[test]
fn every_statement_that_a_history_can_show_has_a_validator() {
    let sections = ["ORD", "FLT", "WAT"];
    let of = |statement: &str| statement.split(' ').next().is_some_and(|section| sections.contains(&section));
    let validated: BTreeSet<String> = history::statements().map(str::to_owned).collect();
    let unseen: BTreeSet<String> = history::UNSEEN.iter().map(|(statement, _)| (*statement).to_owned()).collect();
    assert!(validated.is_disjoint(&unseen), "{unseen:?}");
    assert!(history::UNSEEN.iter().all(|(_, why)| !why.is_empty()));
    let judged: BTreeSet<String> = validated.iter().chain(&unseen).filter(|statement| of(statement)).cloned().collect();
    let all: BTreeSet<String> = statements().into_iter().filter(|statement| of(statement)).collect();
    assert_eq!(judged, all);
    assert!(unseen.iter().all(|statement| of(statement)), "{unseen:?}");
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

/// Whoever reads the contract knows every word that a report may begin with.
#[test]
fn the_contract_has_every_verdict() {
    use discovery_conformance::Verdict::{Failed, Filtered, Partial, Passed, PassedBlackBox};
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/contract.md");
    let text = std::fs::read_to_string(path).expect("docs/contract.md");
    let said = text.lines().find(|line| line.contains("Verdicts:")).expect("WIRE 3");
    for verdict in [Passed, PassedBlackBox, Filtered, Partial, Failed] {
        assert!(said.contains(&format!("\"{verdict}\"")), "{verdict}");
    }
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
