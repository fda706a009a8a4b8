//! House rules that a search can check. Each finds all breaches at once, as `file:line`.

use std::process::Command;

use crate::workspace::{output, root};

const MOST_LINES: usize = 600;

#[test]
fn no_test_is_ignored() {
    let attribute = concat!("#[", "ignore");
    assert_none(rust(), |line| line.contains(attribute));
}

#[test]
fn no_documentation_example_is_ignored() {
    assert_none(files(&["*.rs", "*.md"]), |line| {
        let text = line.trim_start().trim_start_matches(['/', '!']).trim_start();
        text.strip_prefix("```").is_some_and(|info| info.split([',', ' ']).any(|word| word.starts_with("ignore")))
    });
}

#[test]
fn nothing_is_left_unwritten() {
    let macros = [concat!("todo", "!("), concat!("unimplemented", "!(")];
    assert_none(rust(), |line| macros.iter().any(|name| line.contains(name)));
}

#[test]
fn no_path_of_one_machine() {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    assert_none(files(&[]), |line| paths.iter().any(|path| line.contains(path)));
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<String> = rust()
        .into_iter()
        .filter(|(_, text)| !text.lines().take(5).any(|line| line.contains("@generated")))
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|&(_, lines)| lines > MOST_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "above {MOST_LINES} lines: {long:#?}");
}

fn assert_none(files: Vec<(String, String)>, breaks: impl Fn(&str) -> bool) {
    assert!(!files.is_empty(), "nothing to search");
    let breaches: Vec<String> = files
        .iter()
        .flat_map(|(name, text)| text.lines().enumerate().map(move |(index, line)| (name, index + 1, line)))
        .filter(|(_, _, line)| breaks(line))
        .map(|(name, number, line)| format!("{name}:{number}: {}", line.trim()))
        .collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
}

fn rust() -> Vec<(String, String)> {
    files(&["*.rs"])
}

/// Name and text of what git tracks, and of what it would with the next `git add`: a breach shows before the commit.
pub(crate) fn files(patterns: &[&str]) -> Vec<(String, String)> {
    let mut list = Command::new("git");
    // Reading a checkout of another user's, as in a container, is no danger.
    list.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"])
        .args(patterns);
    output(&mut list)
        .split_terminator('\0')
        // What was deleted and not yet committed is still listed.
        .filter_map(|name| Some((name.to_owned(), std::fs::read(root().join(name)).ok()?)))
        .map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes).into_owned()))
        .collect()
}
