//! Commands that documents, errors and reports tell: what they name is there.

use crate::house::files;
use crate::workspace::{Metadata, Package};

/// What a command is of that somebody would write for a package of their own.
const OTHERS: [&str; 1] = ["my-backend"];

#[test]
fn every_command_names_a_package_a_target_and_features_that_there_are() {
    let metadata = Metadata::read();
    let packages: Vec<&Package> = metadata.members().collect();
    let mut found = 0;
    let mut wrong = Vec::new();
    // This file has wrong ones on purpose.
    let searched =
        files(&["*.rs", "*.md", "*.yml"]).into_iter().filter(|(file, _)| !file.ends_with("guards/commands.rs"));
    for (file, text) in searched {
        for (number, line) in text.lines().enumerate() {
            for command in commands(line) {
                found += 1;
                if let Err(why) = check(command, &packages) {
                    wrong.push(format!("{file}:{}: `{command}`: {why}", number + 1));
                }
            }
        }
    }
    assert!(found > 20, "only {found} commands are found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_command_that_names_what_is_not_there_is_found() {
    let metadata = Metadata::read();
    let packages: Vec<&Package> = metadata.members().collect();
    let verdict = |line: &str| commands(line).map(|command| check(command, &packages)).collect::<Result<Vec<_>, _>>();
    for right in [
        "run `cargo test -p discovery-k8s --test conformance kubernetes-containers`.",
        "cargo test -p discovery-conformance --features etcd,file --test conformance -- etcd::",
        "`cargo bench -p discovery-core --bench scale -- change`",
        "cargo test --test use",
    ] {
        assert!(verdict(right).is_ok(), "{right}");
    }
    for (wrong, why) in [
        ("cargo test -p discovery-nonesuch", "no package discovery-nonesuch"),
        ("`cargo test -p discovery-k8s --test suite`", "no test suite"),
        ("cargo bench -p discovery-core --bench conformance", "no bench conformance"),
        ("cargo test -p discovery-conformance --features kubernetes --test conformance", "no feature kubernetes"),
    ] {
        assert_eq!(verdict(wrong).unwrap_err(), why);
    }
}

/// The commands of a line that name a package.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    let starts = ["cargo test -p ", "cargo bench -p "].into_iter().flat_map(|start| line.match_indices(start));
    let command = |(start, _): (usize, &str)| {
        let rest = &line[start..];
        let end = rest.find(['`', '"', ';', '#', '|', '\\', ')', '(']).unwrap_or(rest.len());
        rest[..end].trim_end_matches(['.', ',', ' '])
    };
    // What stands in braces is put in later.
    starts.map(command).filter(|command| !command.contains(['{', '<']))
}

fn check(command: &str, packages: &[&Package]) -> Result<(), String> {
    let mut words = command.split_whitespace().skip(2).take_while(|word| *word != "--");
    let mut package = None;
    while let Some(word) = words.next() {
        let mut named = || words.next().ok_or(format!("nothing after {word}"));
        let of = || package.ok_or("names no package before");
        match word {
            "-p" => {
                let name = named()?;
                if OTHERS.contains(&name) {
                    return Ok(());
                }
                let found = packages.iter().find(|package| package.name == name);
                package = Some(*found.ok_or(format!("no package {name}"))?);
            }
            "--test" | "--bench" => {
                let (kind, name) = (&word[2..], named()?);
                let is_it = |target: &&crate::workspace::Target| target.name == name && target.kind == [kind];
                of()?.targets.iter().find(is_it).ok_or(format!("no {kind} {name}"))?;
            }
            "--features" => {
                for feature in named()?.split(',') {
                    of()?.features.get(feature).ok_or(format!("no feature {feature}"))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
