use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::diff::opened;
use super::node::{FAN, LEAF, Node, Subtree};
use super::slots::Slots;
use super::*;

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    key: u32,
    value: u32,
}

type Item = Arc<Entry>;
type Model = BTreeMap<u32, Item>;

impl Keyed for Item {
    type Key = u32;

    fn key(&self) -> &u32 {
        &self.key
    }
}

fn item(key: u32, value: u32) -> Item {
    Arc::new(Entry { key, value })
}

fn built(keys: impl IntoIterator<Item = u32>) -> Tree<Item> {
    Tree::from_sorted(keys.into_iter().map(|key| item(key, 0)))
}

fn tree_of(model: &Model) -> Tree<Item> {
    Tree::from_sorted(model.values().cloned())
}

/// Checks everything that holds inside a tree and gives back its height.
fn check(tree: &Tree<Item>) -> u32 {
    let mut previous = None;
    for item in tree.iter() {
        assert!(previous.is_none_or(|previous| previous < item.key), "keys ascend");
        previous = Some(item.key);
    }
    assert_eq!(tree.iter().count(), tree.len());
    assert_eq!(tree.is_empty(), tree.iter().next().is_none());
    let Some(root) = &tree.root else { return 0 };
    if let Node::Inner(inner) = &root.node {
        assert!(inner.children.len() >= 2, "a root with one child gives way to it");
    }
    check_below(root, true);
    let height = root.node.height();
    let worst = (tree.len() as f64).log(Slots::<Item, LEAF>::MIN as f64);
    assert!(f64::from(height) <= worst + 1.0, "{} items on {height} levels", tree.len());
    height
}

fn check_below(subtree: &Subtree<Item>, is_root: bool) {
    match &subtree.node {
        Node::Leaf(items) => {
            assert_eq!(subtree.len, items.len());
            assert_eq!(items.iter().count(), items.len());
            assert!(items.len() >= if is_root { 1 } else { Slots::<Item, LEAF>::MIN });
        }
        Node::Inner(inner) => {
            assert_eq!(subtree.len, inner.children.iter().map(|child| child.len).sum::<usize>());
            assert_eq!(inner.children.iter().count(), inner.children.len());
            assert_eq!(inner.firsts.len(), inner.children.len());
            assert!(is_root || inner.children.len() >= Slots::<Subtree<Item>, FAN>::MIN);
            let mut before = 0;
            for (at, child) in inner.children.iter().enumerate() {
                assert_eq!(inner.ends.find(before), (at, 0));
                before += child.len;
                assert_eq!(inner.ends.find(before - 1), (at, child.len - 1));
            }
            for (child, first) in inner.children.iter().zip(inner.firsts.iter()) {
                assert_eq!(child.node.height() + 1, inner.height);
                assert!(Arc::ptr_eq(child.node.first(), first), "no item outlives its removal as a first");
                check_below(child, false);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(u32),
    Remove(u32),
    /// Every `step`th key of a range, each one inserted or each one removed.
    InsertRun {
        start: u32,
        count: u32,
        step: u32,
    },
    RemoveRun {
        start: u32,
        count: u32,
        step: u32,
    },
    Rebuild,
}

const KEYS: u32 = 6_000;

fn edit() -> impl Strategy<Value = Edit> {
    let run = || (0..KEYS, 1..2_000_u32, 1..4_u32);
    prop_oneof![
        6 => (0..KEYS).prop_map(Edit::Insert),
        6 => (0..KEYS).prop_map(Edit::Remove),
        2 => run().prop_map(|(start, count, step)| Edit::InsertRun { start, count, step }),
        2 => run().prop_map(|(start, count, step)| Edit::RemoveRun { start, count, step }),
        1 => Just(Edit::Rebuild),
    ]
}

/// Applies an edit to both and checks that they answer alike.
fn apply(edit: &Edit, value: u32, tree: &mut Tree<Item>, model: &mut Model) {
    let mut insert = |tree: &mut Tree<Item>, key| {
        let item = item(key, value);
        assert_eq!(tree.insert(item.clone()), model.insert(key, item));
    };
    match *edit {
        Edit::Insert(key) => insert(tree, key),
        Edit::InsertRun { start, count, step } => {
            for key in (start..start + count).step_by(step as usize) {
                insert(tree, key);
            }
        }
        Edit::Remove(key) => assert_eq!(tree.remove(&key), model.remove(&key)),
        Edit::RemoveRun { start, count, step } => {
            // Downwards for some, so that nodes join in both directions.
            let mut keys: Vec<_> = (start..start + count).step_by(step as usize).collect();
            if count % 2 == 0 {
                keys.reverse();
            }
            for key in keys {
                assert_eq!(tree.remove(&key), model.remove(&key));
            }
        }
        Edit::Rebuild => *tree = tree_of(model),
    }
}

fn assert_alike(tree: &Tree<Item>, model: &Model) {
    check(tree);
    assert_eq!(tree.len(), model.len());
    assert!(tree.iter().eq(model.values()));
}

type Step = (u32, Option<Item>, Option<Item>);

fn model_diff(old: &Model, new: &Model) -> Vec<Step> {
    let mut keys: Vec<_> = old.keys().chain(new.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let steps = keys.into_iter().map(|key| (key, old.get(&key).cloned(), new.get(&key).cloned()));
    steps.filter(|(_, was, is)| was != is).collect()
}

fn tree_diff(old: &Tree<Item>, new: &Tree<Item>) -> Vec<Step> {
    let mut steps = Vec::new();
    Tree::diff(
        old,
        new,
        |was, is| was == is,
        |step| {
            steps.push(match step {
                Diff::Added(is) => (is.key, None, Some(is.clone())),
                Diff::Changed(was, is) => (is.key, Some(was.clone()), Some(is.clone())),
                Diff::Removed(was) => (was.key, Some(was.clone()), None),
            });
        },
    );
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map_and_keeps_every_version(
        start in 0..KEYS,
        edits in prop::collection::vec(edit(), 1..24),
        pairs in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 8),
    ) {
        let mut model: Model = (0..start).map(|key| (key, item(key, 0))).collect();
        let mut tree = tree_of(&model);
        let mut versions = vec![(tree.clone(), model.clone())];
        for (value, edit) in (1..).zip(&edits) {
            apply(edit, value, &mut tree, &mut model);
            check(&tree);
            versions.push((tree.clone(), model.clone()));
        }
        for (tree, model) in &versions {
            assert_alike(tree, model);
        }
        for (old, new) in pairs {
            let ((old, old_model), (new, new_model)) = (old.get(&versions), new.get(&versions));
            opened::take();
            prop_assert_eq!(tree_diff(old, new), model_diff(old_model, new_model));
            prop_assert_eq!(opened::take(), unshared(old, new), "opens what is not shared, and nothing else");
        }
    }

    #[test]
    fn finds_by_key_by_position_and_by_run(
        keys in prop::collection::btree_set(0..KEYS, 0..3_000),
        edits in prop::collection::vec(edit(), 0..6),
        (from, to) in (0..KEYS + 10, 0..KEYS + 10),
    ) {
        let mut model: Model = keys.into_iter().map(|key| (key, item(key, 0))).collect();
        let mut tree = tree_of(&model);
        for edit in &edits {
            apply(edit, 1, &mut tree, &mut model);
        }
        for key in 0..KEYS + 10 {
            prop_assert_eq!(tree.get(&key), model.get(&key));
        }
        for (position, expected) in model.values().enumerate() {
            prop_assert_eq!(tree.nth(position), Some(expected));
        }
        prop_assert_eq!(tree.nth(model.len()), None);
        let place = |key: &u32| match *key {
            key if key < from => Ordering::Less,
            key if key >= to.max(from) => Ordering::Greater,
            _ => Ordering::Equal,
        };
        prop_assert!(tree.range_where(place).eq(model.range(from..to.max(from)).map(|(_, item)| item)));
    }

    #[test]
    fn grows_and_shrinks_one_by_one_in_any_order(keys in prop::collection::vec(0..100_000_u32, 0..1_500)) {
        let (mut tree, mut model) = (Tree::new(), Model::new());
        for &key in &keys {
            apply(&Edit::Insert(key), 0, &mut tree, &mut model);
        }
        assert_alike(&tree, &model);
        for &key in keys.iter().rev() {
            apply(&Edit::Remove(key), 0, &mut tree, &mut model);
        }
        prop_assert!(tree.is_empty());
        prop_assert!(tree.root.is_none());
    }
}

#[test]
fn an_empty_tree_answers_everything() {
    let mut tree = Tree::<Item>::new();
    assert_eq!((tree.len(), tree.is_empty(), check(&tree)), (0, true, 0));
    assert_eq!((tree.get(&1), tree.nth(0), tree.iter().next()), (None, None, None));
    assert_eq!(tree.range_where(|_| Ordering::Equal).next(), None);
    assert_eq!(tree.remove(&1), None);
    assert!(Tree::<Item>::from_sorted(Vec::new()).is_empty());
    assert_eq!(tree_diff(&tree, &tree), []);
}

#[test]
fn builds_every_small_size_with_full_leaves() {
    for size in 0..1_200 {
        let tree = built(0..size);
        check(&tree);
        assert_eq!(tree.len(), size as usize);
    }
    let tree = built(0..LEAF as u32 * 100);
    fn leaves(subtree: &Subtree<Item>) -> usize {
        match &subtree.node {
            Node::Leaf(_) => 1,
            Node::Inner(inner) => inner.children.iter().map(leaves).sum(),
        }
    }
    assert_eq!(tree.root.as_ref().map(leaves), Some(100));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "ascend strictly")]
fn a_debug_build_refuses_items_out_of_order() {
    built([1, 2, 2]);
}

#[test]
fn stays_shallow_when_keys_come_in_order() {
    let (mut up, mut down) = (Tree::new(), Tree::new());
    for key in 0..50_000 {
        up.insert(item(key, 0));
        down.insert(item(50_000 - key, 0));
    }
    assert!(check(&up) <= 5);
    assert!(check(&down) <= 5);
}

#[test]
fn a_removed_item_is_released_at_once() {
    let mut tree = built(0..5_000);
    for key in [0, 16, 2_500, 4_999] {
        let held = tree.get(&key).map(Arc::downgrade);
        assert!(held.as_ref().is_some_and(|held| held.upgrade().is_some()));
        tree.remove(&key);
        assert!(held.is_none_or(|held| held.upgrade().is_none()), "{key} is still held");
    }
}

/// The addresses of all nodes.
fn nodes(tree: &Tree<Item>) -> std::collections::HashSet<usize> {
    fn collect(subtree: &Subtree<Item>, into: &mut std::collections::HashSet<usize>) {
        match &subtree.node {
            Node::Leaf(items) => _ = into.insert(Arc::as_ptr(items).addr()),
            Node::Inner(inner) => {
                into.insert(Arc::as_ptr(inner).addr());
                inner.children.iter().for_each(|child| collect(child, into));
            }
        }
    }
    let mut into = std::collections::HashSet::new();
    tree.root.iter().for_each(|root| collect(root, &mut into));
    into
}

/// How many nodes belong to one of the two trees only.
fn unshared(one: &Tree<Item>, two: &Tree<Item>) -> usize {
    nodes(one).symmetric_difference(&nodes(two)).count()
}

#[test]
fn an_edit_copies_one_path_when_shared_and_nothing_when_not() {
    let old = built((0..100_000).map(|key| key * 2));
    let mut new = old.clone();
    assert_eq!(nodes(&new).difference(&nodes(&old)).count(), 0);
    new.insert(item(77_000, 1));
    let height = check(&new) as usize;
    assert_eq!(nodes(&new).difference(&nodes(&old)).count(), height + 1);

    let before = nodes(&new);
    new.insert(item(77_000, 2));
    assert_eq!(nodes(&new), before, "nobody else held the path");

    let shared = new.clone();
    assert_eq!(new.remove(&77_001), None);
    assert_eq!(nodes(&new), nodes(&shared), "there was nothing to remove");
}

#[test]
fn a_difference_costs_the_changes() {
    let base = built((0..100_000).map(|key| key * 2));
    opened::take();
    assert_eq!(tree_diff(&base, &base.clone()), []);
    assert_eq!(opened::take(), 0);

    let most = 2 * (check(&base) as usize + 2);
    for key in (0..200_000).step_by(997) {
        let mut new = base.clone();
        match key % 3 {
            0 => _ = new.insert(item(key, 1)),
            1 => _ = new.insert(item(key | 1, 1)),
            _ => _ = new.remove(&(key & !1)),
        }
        opened::take();
        assert_eq!(tree_diff(&base, &new).len(), 1);
        let cost = opened::take();
        assert!(cost <= most, "{cost} nodes opened for the change at {key}, {most} are enough");
    }
}

#[test]
fn a_difference_stays_cheap_where_boundaries_shift() {
    // Removing the leading leaves and adding others shifts every later node's position, and the root's height.
    let base = built(1_000..101_000);
    let height = check(&base) as usize;
    let mut new = base.clone();
    for key in 1_000..1_200 {
        new.remove(&key);
    }
    for key in 0..500 {
        new.insert(item(key, 1));
    }
    check(&new);
    for (old, new) in [(&base, &new), (&new, &base)] {
        opened::take();
        assert_eq!(tree_diff(old, new).len(), 700);
        let cost = opened::take();
        let (leaves, joined) = (700 / Slots::<Item, LEAF>::MIN, 4 * (height + 1));
        assert!(cost <= leaves + leaves / 4 + joined, "{cost} nodes opened for 700 changes side by side");
    }

    // One tree is far taller than the other, and shares nearly all of the smaller one.
    let small = built(0..64);
    let mut tall = small.clone();
    for key in 64..50_000 {
        tall.insert(item(key, 1));
    }
    for (old, new) in [(&small, &tall), (&tall, &small)] {
        opened::take();
        assert_eq!(tree_diff(old, new).len(), 50_000 - 64);
        assert_eq!(opened::take(), unshared(old, new));
    }
}
