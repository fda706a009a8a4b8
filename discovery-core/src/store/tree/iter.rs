//! Iteration, over everything or over one run of keys.

use std::cmp::Ordering;
use std::iter::FusedIterator;
use std::slice;

use super::Keyed;
use super::node::{Node, Subtree};

/// What is still ahead: the rest of a leaf, and above it the rest of the children on each level.
///
/// Allocates once, for the levels.
struct Walk<'a, T> {
    levels: Vec<slice::Iter<'a, Option<Subtree<T>>>>,
    leaf: slice::Iter<'a, Option<T>>,
}

impl<'a, T> Walk<'a, T> {
    fn new(root: Option<&'a Subtree<T>>, before: impl Fn(&T) -> bool) -> Self {
        let mut walk = Self { levels: Vec::new(), leaf: [].iter() };
        if let Some(root) = root {
            walk.levels.reserve_exact(root.node.height() as usize);
            walk.enter(&root.node, before);
        }
        walk
    }

    /// Goes to the first item below `node` that is not `before` the start. That can be past the end of the leaf where
    /// the search ends, since a child begins before the start even where all of it does.
    fn enter(&mut self, mut node: &'a Node<T>, before: impl Fn(&T) -> bool) {
        loop {
            match node {
                Node::Leaf(items) => {
                    self.leaf = items.slots_from(items.partition_point(before)).iter();
                    return;
                }
                Node::Inner(inner) => {
                    let at = inner.firsts.partition_point(&before).saturating_sub(1);
                    self.levels.push(inner.children.slots_from(at + 1).iter());
                    node = &inner.children[at].node;
                }
            }
        }
    }

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(Some(item)) = self.leaf.next() {
                return Some(item);
            }
            match self.levels.last_mut()?.next() {
                Some(Some(child)) => self.enter(&child.node, |_| false),
                _ => _ = self.levels.pop(),
            }
        }
    }
}

/// All items in key order.
pub(crate) struct Iter<'a, T> {
    walk: Walk<'a, T>,
    left: usize,
}

impl<'a, T> Iter<'a, T> {
    pub(super) fn new(root: Option<&'a Subtree<T>>) -> Self {
        Self { walk: Walk::new(root, |_| false), left: root.map_or(0, |root| root.len) }
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let item = self.walk.next()?;
        self.left -= 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}
impl<T> FusedIterator for Iter<'_, T> {}

/// The items of one contiguous run of keys, in key order.
pub(crate) struct RangeWhere<'a, T, F> {
    /// `None` once the run has ended.
    walk: Option<Walk<'a, T>>,
    place: F,
}

impl<'a, T: Keyed, F: Fn(&T::Key) -> Ordering> RangeWhere<'a, T, F> {
    pub(super) fn new(root: Option<&'a Subtree<T>>, place: F) -> Self {
        Self { walk: Some(Walk::new(root, |item| place(item.key()) == Ordering::Less)), place }
    }
}

impl<'a, T: Keyed, F: Fn(&T::Key) -> Ordering> Iterator for RangeWhere<'a, T, F> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let item = self.walk.as_mut()?.next().filter(|item| (self.place)(item.key()) == Ordering::Equal);
        if item.is_none() {
            self.walk = None;
        }
        item
    }
}

impl<T: Keyed, F: Fn(&T::Key) -> Ordering> FusedIterator for RangeWhere<'_, T, F> {}
