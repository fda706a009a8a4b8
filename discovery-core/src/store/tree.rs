//! A persistent ordered set of keyed items: a B+tree whose versions share structure.
//!
//! Cloning a tree copies a pointer. An edit copies the nodes between the root and one leaf where another version shares
//! them, and changes them in place where none does, so a batch of edits on one clone copies each node once. The
//! difference of two versions passes over what they share without looking inside.

mod diff;
mod iter;
mod node;
mod slots;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

pub(crate) use diff::Diff;
pub(crate) use iter::{Iter, RangeWhere};
use node::{Inserted, Node, Subtree};

/// An item that carries its own key.
pub(crate) trait Keyed {
    /// What items are ordered by.
    type Key: Ord + ?Sized;

    /// The item's key. It never changes while the item is in a tree.
    fn key(&self) -> &Self::Key;
}

/// A set of items in the order of their keys, at most one per key.
///
/// Items are cloned when a node is copied and kept a second time where they begin a node, so `T` should be a pointer.
#[derive(Clone)]
pub(crate) struct Tree<T> {
    root: Option<Subtree<T>>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<T: Keyed + Clone> Tree<T> {
    /// A tree without items. Allocates nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A tree of items that ascend strictly by key, in O(n). Another order is a bug of the caller: a debug build
    /// panics, a release build makes a tree that finds some of its items only by position.
    pub(crate) fn from_sorted(items: impl IntoIterator<Item = T>) -> Self {
        let items: Vec<T> = items.into_iter().collect();
        debug_assert!(items.is_sorted_by(|a, b| a.key() < b.key()), "the items must ascend strictly by key");
        Self { root: node::build(items) }
    }

    /// Whether both are one version, in O(1). Two that were made apart are not, whatever they hold.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (Some(one), Some(two)) => one.node.is(&two.node),
            (None, None) => true,
            _ => false,
        }
    }

    /// How many items there are, in O(1).
    pub(crate) fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.len)
    }

    /// Whether there is no item.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The item with this key, in O(log n).
    pub(crate) fn get(&self, key: &T::Key) -> Option<&T> {
        let mut node = &self.root.as_ref()?.node;
        loop {
            match node {
                Node::Leaf(items) => return items.get(items.search(key).ok()?),
                Node::Inner(inner) => node = &inner.children.get(inner.find(key).at)?.node,
            }
        }
    }

    /// The item at this position, counted from 0 in key order, in O(log n).
    pub(crate) fn nth(&self, mut position: usize) -> Option<&T> {
        let mut node = &self.root.as_ref()?.node;
        loop {
            match node {
                Node::Leaf(items) => return items.get(position),
                Node::Inner(inner) => {
                    let (at, inside) = inner.ends.find(position);
                    (node, position) = (&inner.children.get(at)?.node, inside);
                }
            }
        }
    }

    /// Puts an item in and gives back the one that had its key, in O(log n).
    pub(crate) fn insert(&mut self, item: T) -> Option<T> {
        let Some(root) = &mut self.root else {
            self.root = node::build(vec![item]);
            return None;
        };
        match root.insert(item) {
            Inserted::Replaced(old) => Some(old),
            Inserted::Added(None) => None,
            Inserted::Added(Some(right)) => {
                self.root = self.root.take().map(|left| Subtree::of_two(left, right));
                None
            }
        }
    }

    /// Takes the item with this key out, in O(log n). Copies nothing where there is none.
    pub(crate) fn remove(&mut self, key: &T::Key) -> Option<T> {
        self.get(key)?;
        let root = self.root.as_mut()?;
        let removed = root.remove(key);
        if root.len == 0 {
            self.root = None;
        } else if let Some(only) = root.only_child() {
            *root = only;
        }
        removed
    }

    /// All items in key order.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        Iter::new(self.root.as_ref())
    }

    /// The contiguous run of items for whose keys `place` says `Equal`, in key order. Found in O(log n).
    ///
    /// `place` tells where a key stands relative to the run: `Less` before it, `Equal` inside, `Greater` after it. It
    /// must never go down as keys go up.
    pub(crate) fn range_where<F>(&self, place: F) -> RangeWhere<'_, T, F>
    where
        F: Fn(&T::Key) -> Ordering,
    {
        RangeWhere::new(self.root.as_ref(), place)
    }

    /// Tells `out`, in key order, what makes `new` out of `old`. Items count as unchanged where `same` says so, which it
    /// must not of items with different keys. It is asked before keys are read, and not at all where a node is shared.
    ///
    /// Costs O(changes * log n) where one tree was made from the other by edits, at most O(n).
    pub(crate) fn diff<'a>(old: &'a Self, new: &'a Self, same: impl Fn(&T, &T) -> bool, out: impl FnMut(Diff<'a, T>)) {
        diff::diff(old.root.as_ref(), new.root.as_ref(), same, out);
    }
}
