//! What a listing shows, for sources that are shorter than any crate.

use super::{list, surface};

fn items(source: &str) -> Vec<syn::Item> {
    syn::parse_str::<syn::File>(source).unwrap_or_else(|error| panic!("{error}: {source}")).items
}

/// `expected` may be laid out in any way.
#[track_caller]
fn assert_listed(source: &str, expected: &str) {
    assert_eq!(list(items(source)), surface::render(&items(expected)));
}

#[test]
fn only_what_is_public_is_listed() {
    assert_listed(
        "/// Words.
         pub struct A { /// Words.
             pub a: u8, b: u16 }
         pub struct B(pub u8, u16);
         struct Hidden;
         impl A { pub fn open(mut self, mut n: u8) -> u8 { n } fn closed(&self) {} pub(crate) fn near(&self) {} }
         impl Hidden { pub fn open(&self) {} }
         pub(crate) fn near() {}
         #[cfg(test)] pub mod tests { pub fn test() {} }
         #[doc(hidden)] pub fn plumbing() {}
         pub const N: u8 = 3; pub static M: u8 = N + 1;
         pub fn f() { g() }",
        "pub struct A { pub a: u8, _private: _ }
         impl A { pub fn open(self, n: u8) -> u8 {} }
         pub struct B(pub u8, _);
         pub static M: u8 = _; pub const N: u8 = 3;
         pub fn f() {}",
    );
}

#[test]
fn an_item_stands_where_users_find_it() {
    let expected = "pub use other::Foreign; pub struct A; impl A { pub fn f() {} }
         pub struct Renamed; pub mod open { pub fn g() {} }";
    assert_listed(
        "mod a { pub struct A; pub struct B; } mod b { use crate::a::A; impl A { pub fn f() {} } }
         pub mod open { pub use self::deep::*; mod deep { pub fn g() {} fn h() {} } }
         pub use a::{A, B as Renamed}; pub use other::Foreign;",
        expected,
    );
    assert_listed(
        "mod c { pub mod d { pub struct A; impl A { pub fn f() {} } pub struct Renamed; } }
         mod e { pub fn g() {} } pub mod open { pub use super::e::g; }
         pub use other::Foreign; pub use c::d::*;",
        expected,
    );
}

#[test]
fn implementations_stand_with_the_type_or_else_the_trait() {
    assert_listed(
        "pub struct A; mod hidden { pub(crate) struct A; pub(crate) trait T {} impl T for crate::A {}
             impl Clone for A { fn clone(&self) -> A { A } } }
         pub trait T { type X; const N: u8; fn needed(&self); fn given(&self) { body() } }
         impl T for A { type X = u8; const N: u8 = 1; fn needed(&self) {} }
         impl<F: Fn()> T for F { type X = F; const N: u8 = 2; fn needed(&self) {} }
         impl From<A> for String { fn from(a: A) -> String { x } }
         impl T for hidden::A { type X = u8; const N: u8 = 1; fn needed(&self) {} }",
        "pub struct A;
         impl From<A> for String {}
         impl T for A { type X = u8; const N: u8 = 1; }
         pub trait T { type X; const N: u8; fn needed(&self); fn given(&self) {} }
         impl<F: Fn()> T for F { type X = F; const N: u8 = 2; }",
    );
}

#[test]
fn attributes_that_users_feel_are_kept() {
    assert_listed(
        "#[non_exhaustive] #[derive(Clone)] #[serde(untagged)] #[allow(dead_code)]
         pub enum E { #[serde(skip)] A { x: u8 }, B(u8) }
         #[cfg(feature = \"x\")] #[must_use] #[inline] pub fn f() {}",
        "#[non_exhaustive] #[derive(Clone)] pub enum E { A { x: u8 }, B(u8) }
         #[cfg(feature = \"x\")] #[must_use] pub fn f() {}",
    );
}
