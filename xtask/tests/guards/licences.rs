//! Every dependency comes under a licence that `deny.toml` allows.
//!
//! cargo-deny says the same and more, but takes minutes to build; this reads the same list in a second.

use spdx::{Expression, Licensee, ParseMode};

use crate::workspace::{Metadata, deny};

#[test]
fn every_licence_is_allowed() {
    let allowed = allowed();
    let refused: Vec<String> = Metadata::read()
        .packages
        .into_iter()
        .filter(|package| !package.license.as_deref().is_some_and(|licence| accepts(&allowed, licence)))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
}

#[test]
fn a_choice_of_licences_needs_one_and_a_sum_needs_all() {
    let allowed = allowed();
    for licence in ["MIT", "GPL-3.0-only OR MIT", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(accepts(&allowed, licence), "{licence}");
    }
    for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "MPL-2.0", "no licence that is known"] {
        assert!(!accepts(&allowed, licence), "{licence}");
    }
}

fn allowed() -> Vec<Licensee> {
    let parse = |text: &String| Licensee::parse(text).unwrap_or_else(|error| panic!("deny.toml: {error}"));
    deny().licenses.allow.iter().map(parse).collect()
}

fn accepts(allowed: &[Licensee], licence: &str) -> bool {
    Expression::parse_mode(licence, ParseMode::LAX)
        .is_ok_and(|expression| expression.evaluate(|wanted| allowed.iter().any(|licensee| licensee.satisfies(wanted))))
}
