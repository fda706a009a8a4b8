//! Nodes, and edits below one node.

use std::mem;
use std::sync::Arc;

use super::Keyed;
use super::slots::Slots;

/// Items of a leaf. Copying a shared leaf touches each of its items, and those are rarely in the processor's cache.
pub(super) const LEAF: usize = 16;

/// Children of an inner node. An edit of a shared tree copies one inner node per level, so few children per node cost
/// less than few levels.
pub(super) const FAN: usize = 16;

/// Children of an inner node that was built in bulk: room for the first splits below it, where memory is cheap.
const FAN_BUILT: usize = FAN * 3 / 4;

/// A node and how many items are in and below it. Never empty.
#[derive(Clone)]
pub(super) struct Subtree<T> {
    pub(super) node: Node<T>,
    pub(super) len: usize,
}

#[derive(Clone)]
pub(super) enum Node<T> {
    Leaf(Arc<Slots<T, LEAF>>),
    Inner(Arc<Inner<T>>),
}

#[derive(Clone)]
pub(super) struct Inner<T> {
    /// The first item below each child. Behind a pointer of its own, since most edits leave it alone: copying a shared
    /// node then counts one more reference here, not one for each item.
    pub(super) firsts: Arc<Slots<T, FAN>>,
    pub(super) children: Slots<Subtree<T>, FAN>,
    /// How the children's items are counted through.
    pub(super) ends: Ends,
    /// Levels below this node; a leaf has none.
    pub(super) height: u32,
}

/// How many items there are up to the end of each child: tells which child holds a position without a look at them.
#[derive(Clone)]
pub(super) struct Ends([u32; FAN]);

impl Ends {
    /// Of up to 2^32 items, which take a terabyte of memory.
    fn of<T>(children: &Slots<Subtree<T>, FAN>) -> Self {
        // Where there is no child, no position is beyond its end.
        let mut ends = [u32::MAX; FAN];
        let mut total = 0_usize;
        for (end, child) in ends.iter_mut().zip(children.iter()) {
            total += child.len;
            *end = u32::try_from(total).unwrap_or(u32::MAX);
        }
        Self(ends)
    }

    /// The child that holds a position, and the position in it. Counts all ends: no branch to be guessed, and the
    /// compiler counts several at once.
    pub(super) fn find(&self, position: usize) -> (usize, usize) {
        let wanted = u32::try_from(position).unwrap_or(u32::MAX);
        let at = self.0.iter().map(|end| u32::from(*end <= wanted)).sum::<u32>() as usize;
        let before = at.checked_sub(1).and_then(|left| self.0.get(left)).map_or(0, |end| *end as usize);
        (at, position - before)
    }
}

/// What an insertion did.
pub(super) enum Inserted<T> {
    /// The key was there already, with this item.
    Replaced(T),
    /// The item is new. Where the node was full it split, and this part belongs to the right of it.
    Added(Option<Subtree<T>>),
}

/// Where a key belongs in an inner node.
pub(super) struct Place {
    /// The child.
    pub(super) at: usize,
    /// Whether an edit at the key changes the child's first item.
    leads: bool,
}

/// A subtree of items in ascending order, with full leaves; `None` without items.
pub(super) fn build<T: Clone>(items: Vec<T>) -> Option<Subtree<T>> {
    let mut level: Vec<Subtree<T>> = groups::<_, LEAF>(items, LEAF).map(Subtree::leaf).collect();
    let mut height = 0;
    while level.len() > 1 {
        height += 1;
        level = groups(level, FAN_BUILT).map(|children| Subtree::inner(height, children)).collect();
    }
    level.pop()
}

/// Cuts `values` into as few groups of at most `limit` as it takes, of sizes that differ by one at most.
fn groups<V, const N: usize>(values: Vec<V>, limit: usize) -> impl Iterator<Item = Slots<V, N>> {
    let (total, count) = (values.len(), values.len().div_ceil(limit));
    let mut values = values.into_iter();
    (0..count).map(move |group| {
        let size = total / count + usize::from(group < total % count);
        Slots::fill(values.by_ref().take(size))
    })
}

impl<T> Node<T> {
    pub(super) fn height(&self) -> u32 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner(inner) => inner.height,
        }
    }

    pub(super) fn first(&self) -> &T {
        match self {
            Self::Leaf(items) => &items[0],
            Self::Inner(inner) => &inner.firsts[0],
        }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(one), Self::Leaf(two)) => Arc::ptr_eq(one, two),
            (Self::Inner(one), Self::Inner(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    /// Whether it holds less than a node other than the root may.
    fn is_small(&self) -> bool {
        match self {
            Self::Leaf(items) => items.len() < Slots::<T, LEAF>::MIN,
            Self::Inner(inner) => inner.children.len() < Slots::<Subtree<T>, FAN>::MIN,
        }
    }
}

impl<T: Clone> Subtree<T> {
    fn leaf(items: Slots<T, LEAF>) -> Self {
        Self { len: items.len(), node: Node::Leaf(Arc::new(items)) }
    }

    fn inner(height: u32, children: Slots<Self, FAN>) -> Self {
        let firsts = Slots::fill(children.iter().map(|child| child.node.first().clone()));
        Self::of(Inner::new(Arc::new(firsts), children, height))
    }

    fn of(inner: Inner<T>) -> Self {
        Self { len: inner.len(), node: Node::Inner(Arc::new(inner)) }
    }

    /// A new root over the two parts of one that split.
    pub(super) fn of_two(left: Self, right: Self) -> Self {
        Self::inner(left.node.height() + 1, Slots::fill([left, right].into_iter()))
    }

    /// The child that stands alone below this node: a root that can give way to it.
    pub(super) fn only_child(&self) -> Option<Self> {
        match &self.node {
            Node::Inner(inner) if inner.children.len() == 1 => inner.children.get(0).cloned(),
            _ => None,
        }
    }
}

impl<T: Keyed + Clone> Subtree<T> {
    pub(super) fn insert(&mut self, item: T) -> Inserted<T> {
        let inserted = match &mut self.node {
            Node::Leaf(items) => {
                let place = items.search(item.key());
                let items = Arc::make_mut(items);
                match place {
                    Ok(at) => Inserted::Replaced(mem::replace(&mut items[at], item)),
                    Err(at) if items.is_full() => Inserted::Added(Some(Self::leaf(items.split_insert(at, item)))),
                    Err(at) => {
                        items.insert(at, item);
                        Inserted::Added(None)
                    }
                }
            }
            Node::Inner(inner) => Arc::make_mut(inner).insert(item),
        };
        if let Inserted::Added(right) = &inserted {
            self.len = self.len + 1 - right.as_ref().map_or(0, |right| right.len);
        }
        inserted
    }

    /// Takes out the item with this key, which must be there. This node may be small afterwards, none below it is.
    pub(super) fn remove(&mut self, key: &T::Key) -> Option<T> {
        let removed = match &mut self.node {
            Node::Leaf(items) => {
                let at = items.search(key).ok()?;
                Arc::make_mut(items).remove(at)
            }
            Node::Inner(inner) => Arc::make_mut(inner).remove(key),
        }?;
        self.len -= 1;
        Some(removed)
    }

    /// Joins this node with its sibling to the right, of the same height. What does not fit one node is given back.
    fn join(&mut self, right: Self) -> Option<Self> {
        let total = self.len + right.len;
        let rest = match (&mut self.node, right.node) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                Arc::make_mut(left).join(Arc::unwrap_or_clone(right)).map(Self::leaf)
            }
            (Node::Inner(left), Node::Inner(right)) => {
                Arc::make_mut(left).join(Arc::unwrap_or_clone(right)).map(Self::of)
            }
            _ => unreachable!("siblings are of one height"),
        };
        self.len = total - rest.as_ref().map_or(0, |rest| rest.len);
        rest
    }
}

impl<T: Clone> Inner<T> {
    fn new(firsts: Arc<Slots<T, FAN>>, children: Slots<Subtree<T>, FAN>, height: u32) -> Self {
        Self { ends: Ends::of(&children), firsts, children, height }
    }

    fn recount(&mut self) {
        self.ends = Ends::of(&self.children);
    }

    fn len(&self) -> usize {
        self.children.iter().map(|child| child.len).sum()
    }

    fn refresh_first(&mut self, at: usize) {
        Arc::make_mut(&mut self.firsts)[at] = self.children[at].node.first().clone();
    }
}

impl<T: Keyed + Clone> Inner<T> {
    pub(super) fn find(&self, key: &T::Key) -> Place {
        match self.firsts.search(key) {
            Ok(at) => Place { at, leads: true },
            Err(0) => Place { at: 0, leads: true },
            Err(next) => Place { at: next - 1, leads: false },
        }
    }

    fn insert(&mut self, item: T) -> Inserted<T> {
        let Place { at, leads } = self.find(item.key());
        let inserted = self.children[at].insert(item);
        if leads {
            self.refresh_first(at);
        }
        let Inserted::Added(right) = inserted else { return inserted };
        let rest = right.and_then(|right| self.insert_child(at + 1, right));
        self.recount();
        Inserted::Added(rest)
    }

    /// Puts a child at `at`; a full node splits and gives back its right part.
    fn insert_child(&mut self, at: usize, child: Subtree<T>) -> Option<Subtree<T>> {
        let first = child.node.first().clone();
        let firsts = Arc::make_mut(&mut self.firsts);
        if self.children.is_full() {
            let firsts = Arc::new(firsts.split_insert(at, first));
            let children = self.children.split_insert(at, child);
            return Some(Subtree::of(Self::new(firsts, children, self.height)));
        }
        firsts.insert(at, first);
        self.children.insert(at, child);
        None
    }

    fn remove(&mut self, key: &T::Key) -> Option<T> {
        let Place { at, leads } = self.find(key);
        let removed = self.children[at].remove(key)?;
        if leads {
            self.refresh_first(at);
        }
        if self.children[at].node.is_small() {
            self.join_child(at);
        }
        self.recount();
        Some(removed)
    }

    /// Joins the child with its sibling to the right, or else to the left. Only a root may have a single child, and it
    /// gives way to it at once, so there is a sibling.
    fn join_child(&mut self, at: usize) {
        let left = if at + 1 < self.children.len() { at } else { at - 1 };
        let Some(right) = self.children.remove(left + 1) else { return };
        let rest = self.children[left].join(right);
        let firsts = Arc::make_mut(&mut self.firsts);
        firsts.remove(left + 1);
        if let Some(rest) = rest {
            firsts.insert(left + 1, rest.node.first().clone());
            self.children.insert(left + 1, rest);
        }
    }

    fn join(&mut self, right: Self) -> Option<Self> {
        let firsts = Arc::make_mut(&mut self.firsts).join(Arc::unwrap_or_clone(right.firsts));
        let children = self.children.join(right.children);
        self.recount();
        Some(Self::new(Arc::new(firsts?), children?, right.height))
    }
}
