//! Which definition a path means, within one crate.

use std::collections::BTreeMap;

use syn::{Ident, Item, UseTree, Visibility};

/// A module, by the names on the way to it.
pub(crate) type Module = Vec<String>;

/// A definition: the module that holds it, and its name.
pub(crate) type Definition = (Module, String);

/// A `use`, taken apart: the path, and the name it gives, which is none for a glob.
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    pub(crate) name: Option<String>,
}

/// A crate's items by module.
pub(crate) struct Crate {
    modules: BTreeMap<Module, Vec<Item>>,
}

/// No chain of imports is as long; a longer one leads back to itself.
const LONGEST_CHAIN: usize = 32;

impl Crate {
    /// Of all items, modules filled in.
    pub(crate) fn new(items: Vec<Item>) -> Self {
        let mut modules = BTreeMap::new();
        enter(&mut modules, Module::new(), items);
        Self { modules }
    }

    /// Every module and what it holds.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&Module, &Vec<Item>)> {
        self.modules.iter()
    }

    /// What a module holds.
    pub(crate) fn items(&self, module: &Module) -> &[Item] {
        self.modules.get(module).map_or(&[], Vec::as_slice)
    }

    /// The items of one name: a type and a function may share it.
    pub(crate) fn named<'a>(&'a self, (module, name): &'a Definition) -> impl Iterator<Item = &'a Item> {
        self.items(module).iter().filter(move |item| ident(item).is_some_and(|ident| ident == name))
    }

    /// The definition that `path` means in `from`, or none where it leads out of the crate.
    pub(crate) fn resolve(&self, from: &Module, path: &[String]) -> Option<Definition> {
        self.follow(from, path, LONGEST_CHAIN)
    }

    /// The module that `path` means in `from`.
    pub(crate) fn module(&self, from: &Module, path: &[String]) -> Option<Module> {
        if path.iter().all(|segment| is_relative(segment)) {
            return Some(step_out(from, path).0);
        }
        let (mut module, name) = self.resolve(from, path)?;
        module.push(name);
        self.modules.contains_key(&module).then_some(module)
    }

    fn follow(&self, from: &Module, path: &[String], left: usize) -> Option<Definition> {
        let left = left.checked_sub(1)?;
        let (module, path) = step_out(from, path);
        let (first, rest) = path.split_first()?;
        if !rest.is_empty() {
            let mut child = module.clone();
            child.push(first.clone());
            if self.modules.contains_key(&child) {
                return self.follow(&child, rest, left);
            }
        }
        let here = (module.clone(), first.clone());
        if rest.is_empty() && self.named(&here).next().is_some() {
            return Some(here);
        }
        self.items(&module).iter().filter_map(imports).flatten().find_map(|import| {
            let prefix = match &import.name {
                Some(name) if name == first => &path[1..],
                Some(_) => return None,
                None => path,
            };
            let target = [&import.path[..], prefix].concat();
            // A path that starts with the name it gives (`use a::a`) would find itself; the module `a` is meant.
            (target != path).then(|| self.follow(&module, &target, left))?
        })
    }
}

/// The imports of an item, where it is a `use` that may stay in the crate.
pub(crate) fn imports(item: &Item) -> Option<Vec<Import>> {
    let Item::Use(item) = item else { return None };
    let mut all = Vec::new();
    take_apart(&item.tree, &mut Vec::new(), &mut all);
    Some(all)
}

/// The name of an item that can be re-exported.
pub(crate) fn ident(item: &Item) -> Option<&Ident> {
    parts(item).map(|(_, ident)| ident)
}

/// The visibility of an item that can be re-exported.
pub(crate) fn is_public(item: &Item) -> bool {
    parts(item).is_some_and(|(visibility, _)| matches!(visibility, Visibility::Public(_)))
}

fn parts(item: &Item) -> Option<(&Visibility, &Ident)> {
    match item {
        Item::Const(item) => Some((&item.vis, &item.ident)),
        Item::Enum(item) => Some((&item.vis, &item.ident)),
        Item::Fn(item) => Some((&item.vis, &item.sig.ident)),
        Item::Mod(item) => Some((&item.vis, &item.ident)),
        Item::Static(item) => Some((&item.vis, &item.ident)),
        Item::Struct(item) => Some((&item.vis, &item.ident)),
        Item::Trait(item) => Some((&item.vis, &item.ident)),
        Item::Type(item) => Some((&item.vis, &item.ident)),
        Item::Union(item) => Some((&item.vis, &item.ident)),
        _ => None,
    }
}

fn enter(modules: &mut BTreeMap<Module, Vec<Item>>, path: Module, items: Vec<Item>) {
    for item in &items {
        if let Item::Mod(module) = item {
            let mut child = path.clone();
            child.push(module.ident.to_string());
            let content = module.content.as_ref().map(|(_, items)| items.clone());
            enter(modules, child, content.unwrap_or_default());
        }
    }
    modules.insert(path, items);
}

fn take_apart(tree: &UseTree, path: &mut Vec<String>, all: &mut Vec<Import>) {
    let mut leaf = |segment: Option<&Ident>, name: Option<&Ident>| {
        let path: Vec<String> = path.iter().cloned().chain(segment.map(Ident::to_string)).collect();
        all.push(Import { path, name: name.map(Ident::to_string) });
    };
    match tree {
        // `a::{self}` names what was come through.
        UseTree::Name(item) if item.ident == "self" => {
            let name = path.last().cloned();
            all.push(Import { path: path.clone(), name });
        }
        UseTree::Name(item) => leaf(Some(&item.ident), Some(&item.ident)),
        UseTree::Rename(item) if item.ident == "self" => leaf(None, Some(&item.rename)),
        UseTree::Rename(item) => leaf(Some(&item.ident), Some(&item.rename)),
        UseTree::Glob(_) => leaf(None, None),
        UseTree::Path(item) => {
            path.push(item.ident.to_string());
            take_apart(&item.tree, path, all);
            path.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| take_apart(tree, path, all)),
    }
}

fn is_relative(segment: &str) -> bool {
    matches!(segment, "crate" | "self" | "super")
}

/// Where the leading `crate`, `self` and `super` of a path lead, and what is left of it.
fn step_out<'a>(from: &Module, mut path: &'a [String]) -> (Module, &'a [String]) {
    let mut module = from.clone();
    while let Some((first, rest)) = path.split_first().filter(|(first, _)| is_relative(first)) {
        match first.as_str() {
            "crate" => module.clear(),
            "super" => drop(module.pop()),
            _ => {}
        }
        path = rest;
    }
    (module, path)
}
