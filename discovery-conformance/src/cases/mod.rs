//! The cases, by the sections of the contract.

mod con;
mod flt;
mod key;
mod liv;
mod ord;
mod plain;
mod rdy;
mod reg;
mod retry;
mod scale;
mod trust;
mod wat;
mod withdraw;

use crate::case::Case;

/// Every case of the suite, in the contract's order.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let sections = [
        reg::CASES,
        withdraw::CASES,
        liv::CASES,
        wat::CASES,
        ord::CASES,
        flt::CASES,
        retry::CASES,
        trust::CASES,
        con::CASES,
        scale::CASES,
        key::CASES,
        rdy::CASES,
    ];
    sections.into_iter().flatten()
}
