//! The difference of two trees.

use std::cmp::Ordering;

use super::Keyed;
use super::node::{FAN, LEAF, Node, Subtree};

/// One step from an old tree to a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Diff<'a, T> {
    /// The new tree has this item, the old one has none with its key.
    Added(&'a T),
    /// The old tree's item and the new tree's, with one key.
    Changed(&'a T, &'a T),
    /// The old tree has this item, the new one has none with its key.
    Removed(&'a T),
}

/// A part of one tree that is still ahead.
enum Part<'a, T> {
    Item(&'a T),
    /// A whole subtree, and its first item.
    Node(&'a Node<T>, &'a T),
}

impl<T> Clone for Part<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Part<'_, T> {}

impl<'a, T> Part<'a, T> {
    fn first(&self) -> &'a T {
        match self {
            Self::Item(first) | Self::Node(_, first) => first,
        }
    }
}

/// What is still ahead of one tree, as few subtrees as possible, the first on top.
struct Frontier<'a, T> {
    parts: Vec<Part<'a, T>>,
}

impl<T> Default for Frontier<'_, T> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<'a, T> Frontier<'a, T> {
    fn new(root: &'a Subtree<T>) -> Self {
        // One node may be open on each level, and it never has to grow.
        let mut parts = Vec::with_capacity(LEAF + FAN * root.node.height() as usize);
        parts.push(Part::Node(&root.node, root.node.first()));
        Self { parts }
    }

    fn top(&self) -> Option<Part<'a, T>> {
        self.parts.last().copied()
    }

    fn skip(&mut self) {
        self.parts.pop();
    }

    /// Puts what is directly below `node`, which is on top, in its place.
    fn open(&mut self, node: &'a Node<T>) {
        #[cfg(test)]
        opened::count();
        self.parts.pop();
        match node {
            Node::Leaf(items) => self.parts.extend(items.iter().rev().map(Part::Item)),
            Node::Inner(inner) => {
                let children = inner.children.iter().rev().zip(inner.firsts.iter().rev());
                self.parts.extend(children.map(|(child, first)| Part::Node(&child.node, first)));
            }
        }
    }

    /// Consumes the top, which lies before all of the other tree: opens a subtree, hands out an item.
    fn advance(&mut self, top: Part<'a, T>, out: impl FnOnce(&'a T)) {
        match top {
            Part::Node(node, _) => self.open(node),
            Part::Item(item) => {
                self.skip();
                out(item);
            }
        }
    }
}

/// Walks both trees side by side. A subtree that both share comes to the top of both frontiers at once: as long as it
/// is on top of one only, the other's top begins before it, or is a taller subtree that begins with it, and those are
/// the ones that get opened.
pub(super) fn diff<'a, T: Keyed>(
    old: Option<&'a Subtree<T>>,
    new: Option<&'a Subtree<T>>,
    same: impl Fn(&T, &T) -> bool,
    mut out: impl FnMut(Diff<'a, T>),
) {
    if let (Some(old), Some(new)) = (old, new)
        && old.node.is(&new.node)
    {
        return;
    }
    let frontier = |root: Option<&'a Subtree<T>>| root.map(Frontier::new).unwrap_or_default();
    let (mut old, mut new) = (frontier(old), frontier(new));
    loop {
        let (was, is) = match (old.top(), new.top()) {
            (None, None) => return,
            (Some(was), None) => {
                old.advance(was, |item| out(Diff::Removed(item)));
                continue;
            }
            (None, Some(is)) => {
                new.advance(is, |item| out(Diff::Added(item)));
                continue;
            }
            (Some(was), Some(is)) => (was, is),
        };
        // Before any key is read: at a million items most are not in the processor's cache.
        let shared = match (was, is) {
            (Part::Node(was, _), Part::Node(is, _)) => was.is(is),
            (Part::Item(was), Part::Item(is)) => same(was, is),
            _ => false,
        };
        if shared {
            old.skip();
            new.skip();
            continue;
        }
        match was.first().key().cmp(is.first().key()) {
            Ordering::Less => old.advance(was, |item| out(Diff::Removed(item))),
            Ordering::Greater => new.advance(is, |item| out(Diff::Added(item))),
            Ordering::Equal => match (was, is) {
                (Part::Item(was), Part::Item(is)) => {
                    old.skip();
                    new.skip();
                    out(Diff::Changed(was, is));
                }
                (Part::Node(was, _), Part::Item(_)) => old.open(was),
                (Part::Item(_), Part::Node(is, _)) => new.open(is),
                (Part::Node(was, _), Part::Node(is, _)) => {
                    let heights = was.height().cmp(&is.height());
                    if heights.is_ge() {
                        old.open(was);
                    }
                    if heights.is_le() {
                        new.open(is);
                    }
                }
            },
        }
    }
}

/// How many nodes the current thread has opened: what a difference costs.
#[cfg(test)]
pub(super) mod opened {
    use std::cell::Cell;

    thread_local!(static OPENED: Cell<usize> = const { Cell::new(0) });

    pub(super) fn count() {
        OPENED.set(OPENED.get() + 1);
    }

    /// The number since the last call.
    pub(in super::super) fn take() -> usize {
        OPENED.take()
    }
}
