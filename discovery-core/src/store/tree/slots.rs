//! Up to `N` values inline, in order: what a node is made of. One allocation per node, and safe code.

use std::cmp::Ordering;
use std::ops::{Index, IndexMut};

use super::Keyed;

/// The first `len` slots are filled, the others are empty.
#[derive(Clone)]
pub(super) struct Slots<T, const N: usize> {
    slots: [Option<T>; N],
    len: usize,
}

impl<T, const N: usize> Slots<T, N> {
    /// A node other than the root that holds fewer joins a sibling. Well below one half, so that edits that go back and
    /// forth do not split and join the same node each time.
    pub(super) const MIN: usize = N / 4;

    /// Two siblings that hold no more than this become one; with more they share evenly. Below `N`, for the same reason.
    const JOINED: usize = N * 3 / 4;

    pub(super) fn new() -> Self {
        Self { slots: [const { None }; N], len: 0 }
    }

    /// At most `N` values; others stay in the iterator.
    pub(super) fn fill(values: impl Iterator<Item = T>) -> Self {
        let mut filled = Self::new();
        for (slot, value) in filled.slots.iter_mut().zip(values) {
            *slot = Some(value);
            filled.len += 1;
        }
        filled
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == N
    }

    /// The filled slots from `start` on.
    pub(super) fn slots_from(&self, start: usize) -> &[Option<T>] {
        &self.slots[start..self.len]
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.slots.get(at)?.as_ref()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.slots_from(0).iter().flatten()
    }

    pub(super) fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        self.slots_from(0).partition_point(|slot| slot.as_ref().is_some_and(&mut before))
    }

    /// Puts a value at `at`, which is at most `len`; there must be room.
    pub(super) fn insert(&mut self, at: usize, value: T) {
        self.slots[self.len] = Some(value);
        self.slots[at..=self.len].rotate_right(1);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<T> {
        let removed = self.slots.get_mut(at)?.take()?;
        self.slots[at..self.len].rotate_left(1);
        self.len -= 1;
        Some(removed)
    }

    /// The upper half of a full node with `value` put at `at`, a position of the whole; the lower half stays.
    pub(super) fn split_insert(&mut self, at: usize, value: T) -> Self {
        let middle = self.len / 2;
        let mut right = self.split_off(middle);
        if at <= middle {
            self.insert(at, value)
        } else {
            right.insert(at - middle, value)
        }
        right
    }

    /// Takes the values of the sibling to the right where few are left, or else shares evenly with it and gives back
    /// what it then holds. Depends on the numbers alone.
    pub(super) fn join(&mut self, mut right: Self) -> Option<Self> {
        let total = self.len + right.len;
        if total <= Self::JOINED {
            self.append(right);
            return None;
        }
        let half = total / 2;
        if self.len < half {
            let rest = right.split_off(half - self.len);
            self.append(right);
            Some(rest)
        } else {
            let mut moved = self.split_off(half);
            moved.append(right);
            Some(moved)
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        let moved = Self::fill(self.slots[at..self.len].iter_mut().filter_map(Option::take));
        self.len = at;
        moved
    }

    fn append(&mut self, mut right: Self) {
        for value in right.slots.iter_mut().filter_map(Option::take) {
            self.slots[self.len] = Some(value);
            self.len += 1;
        }
    }
}

impl<T: Keyed, const N: usize> Slots<T, N> {
    /// Where the item with this key is, or else where it would go.
    ///
    /// Branches, where the search of the standard library selects without: at a million items most keys are not in the
    /// processor's cache, and a predicted branch fetches the next one before the comparison is through.
    pub(super) fn search(&self, key: &T::Key) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            match self[middle].key().cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

impl<T, const N: usize> Index<usize> for Slots<T, N> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        self.slots[at].as_ref().expect("slots below the length are filled")
    }
}

impl<T, const N: usize> IndexMut<usize> for Slots<T, N> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        self.slots[at].as_mut().expect("slots below the length are filled")
    }
}
