//! What a crate shows: its public items where users find them, without bodies, words and what is private.

use std::collections::BTreeMap;

use syn::{
    Attribute, Expr, Fields, FnArg, GenericArgument, Ident, ImplItem, Item, ItemImpl, ItemMod, Pat, Path,
    PathArguments, ReceiverKind, Signature, TraitItem, Type, Visibility, parse_quote,
};

use super::names::{Crate, Definition, Import, Module, ident, imports, is_public};

/// Attributes that change what a user can write. All others go: words, lints, hints, and how a derive goes about it.
const KEPT: &[&str] =
    &["async_trait", "cfg", "cfg_attr", "deprecated", "derive", "macro_export", "must_use", "non_exhaustive", "repr"];

/// The items of the crate's root.
pub(crate) fn of(whole: &Crate) -> Vec<Item> {
    Surface { whole, implementations: implementations(whole) }.module(&Module::new())
}

/// Whether something is there for tests or for macros only.
pub(crate) fn is_skipped(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let argument = attribute.meta.require_list().map(|list| list.tokens.to_string());
        (attribute.path().is_ident("cfg") && argument.as_ref().is_ok_and(|text| text == "test"))
            || (attribute.path().is_ident("doc") && argument.as_ref().is_ok_and(|text| text == "hidden"))
    })
}

struct Surface<'a> {
    whole: &'a Crate,
    /// Stripped, by the type (or else the trait) that they stand with.
    implementations: BTreeMap<Definition, Vec<Item>>,
}

impl Surface<'_> {
    /// What users find in a module, by name, so that the order in the source does not matter.
    fn module(&self, module: &Module) -> Vec<Item> {
        let mut shown = Vec::new();
        self.collect(module, module, &mut shown);
        shown.sort_by_cached_key(|(name, items)| (name.clone(), render(items)));
        shown.into_iter().flat_map(|(_, items)| items).collect()
    }

    /// Adds what `module` shows, which users find in `at`: the two differ where a glob re-exports it.
    fn collect(&self, at: &Module, module: &Module, shown: &mut Vec<(String, Vec<Item>)>) {
        for item in self.whole.items(module) {
            match item {
                Item::Use(import) if matches!(import.vis, Visibility::Public(_)) && !is_skipped(&import.attrs) => {
                    for import in imports(item).into_iter().flatten() {
                        self.import(at, module, &import, shown);
                    }
                }
                Item::Macro(item) if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) => {
                    let name = item.ident.as_ref().map(Ident::to_string).unwrap_or_default();
                    let mut item = item.clone();
                    strip_attributes(&mut item.attrs);
                    shown.push((name, vec![Item::Macro(item)]));
                }
                _ => {
                    if let Some(name) = ident(item).filter(|_| is_public(item)) {
                        self.define(&(module.clone(), name.to_string()), item, None, shown);
                    }
                }
            }
        }
    }

    fn import(&self, at: &Module, module: &Module, import: &Import, shown: &mut Vec<(String, Vec<Item>)>) {
        match &import.name {
            Some(name) => match self.whole.resolve(module, &import.path) {
                Some(definition) => {
                    for item in self.whole.named(&definition).filter(|item| is_public(item)) {
                        self.define(&definition, item, Some(name), shown);
                    }
                }
                None => shown.push((String::new(), vec![foreign(import)])),
            },
            None => match self.whole.module(module, &import.path) {
                Some(other) if other != *at => self.collect(at, &other, shown),
                Some(_) => {}
                None => shown.push((String::new(), vec![foreign(import)])),
            },
        }
    }

    fn define(&self, definition: &Definition, item: &Item, alias: Option<&str>, shown: &mut Vec<(String, Vec<Item>)>) {
        let name = alias.unwrap_or(&definition.1);
        let mut item = match item {
            Item::Mod(module) => {
                let mut path = definition.0.clone();
                path.push(definition.1.clone());
                let content = Some((Default::default(), self.module(&path)));
                Item::Mod(ItemMod { content, semi: None, ..module.clone() })
            }
            _ => item.clone(),
        };
        if strip(&mut item, name) {
            let mut items = vec![item];
            items.extend(self.implementations.get(definition).into_iter().flatten().cloned());
            shown.push((name.to_owned(), items));
        }
    }
}

fn implementations(whole: &Crate) -> BTreeMap<Definition, Vec<Item>> {
    let mut all: BTreeMap<Definition, Vec<Item>> = BTreeMap::new();
    for (module, items) in whole.modules() {
        for item in items {
            let Item::Impl(item) = item else { continue };
            if let Some(definition) = stands_with(whole, module, item).filter(|_| !is_skipped(&item.attrs)) {
                let stripped = stripped(item);
                // A block whose methods are all private says nothing.
                if item.trait_.is_some() || !stripped.items.is_empty() {
                    all.entry(definition).or_default().push(Item::Impl(stripped));
                }
            }
        }
    }
    for items in all.values_mut() {
        items.sort_by_cached_key(|item| render(std::slice::from_ref(item)));
    }
    all
}

/// The type that is implemented for, where it is this crate's; else the trait, else a type in the trait's arguments. None
/// where one of the first two is private to the crate.
fn stands_with(whole: &Crate, module: &Module, item: &ItemImpl) -> Option<Definition> {
    let find = |path: &Path| whole.resolve(module, &segments(path));
    let shown = |definition: &Definition| whole.named(definition).any(is_public);
    let own_type = head(&item.self_ty).and_then(find);
    let of_trait = item.trait_.as_ref().map(|(path, _)| path);
    let own_trait = of_trait.and_then(find);
    if own_type.iter().chain(&own_trait).any(|definition| !shown(definition)) {
        return None;
    }
    own_type.or(own_trait).or_else(|| of_trait.into_iter().flat_map(arguments).filter_map(find).find(shown))
}

fn segments(path: &Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

fn head(ty: &Type) -> Option<&Path> {
    match ty {
        Type::Path(ty) => Some(&ty.path),
        Type::Reference(ty) => head(&ty.elem),
        _ => None,
    }
}

fn arguments(path: &Path) -> impl Iterator<Item = &Path> {
    path.segments
        .iter()
        .filter_map(|segment| match &segment.arguments {
            PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
            _ => None,
        })
        .flatten()
        .filter_map(|argument| match argument {
            GenericArgument::Type(ty) => head(ty),
            _ => None,
        })
}

fn foreign(import: &Import) -> Item {
    let path = import.path.join("::");
    let text = match &import.name {
        None => format!("pub use {path}::*;"),
        Some(name) if import.path.last() == Some(name) => format!("pub use {path};"),
        Some(name) => format!("pub use {path} as {name};"),
    };
    syn::parse_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Takes from an item what users do not see, and gives it the name they use. False where they see nothing of it.
fn strip(item: &mut Item, name: &str) -> bool {
    let (attributes, ident) = match item {
        Item::Const(item) => {
            strip_value(&mut item.expr);
            (&mut item.attrs, &mut item.ident)
        }
        Item::Enum(item) => {
            for variant in &mut item.variants {
                strip_attributes(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| strip_attributes(&mut field.attrs));
            }
            (&mut item.attrs, &mut item.ident)
        }
        Item::Fn(item) => {
            item.block = parse_quote!({});
            strip_signature(&mut item.sig);
            (&mut item.attrs, &mut item.sig.ident)
        }
        Item::Mod(item) => (&mut item.attrs, &mut item.ident),
        Item::Static(item) => {
            strip_value(&mut item.expr);
            (&mut item.attrs, &mut item.ident)
        }
        Item::Struct(item) => {
            strip_fields(&mut item.fields);
            (&mut item.attrs, &mut item.ident)
        }
        Item::Trait(item) => {
            item.items.iter_mut().for_each(strip_trait_item);
            (&mut item.attrs, &mut item.ident)
        }
        Item::Type(item) => (&mut item.attrs, &mut item.ident),
        Item::Union(item) => (&mut item.attrs, &mut item.ident),
        _ => return false,
    };
    if is_skipped(attributes) {
        return false;
    }
    strip_attributes(attributes);
    *ident = Ident::new(name, ident.span());
    true
}

fn stripped(item: &ItemImpl) -> ItemImpl {
    let mut item = item.clone();
    strip_attributes(&mut item.attrs);
    let of_trait = item.trait_.is_some();
    item.items.retain_mut(|member| {
        let (attributes, visibility) = match member {
            ImplItem::Const(member) => {
                strip_value(&mut member.expr);
                (&mut member.attrs, &member.vis)
            }
            ImplItem::Type(member) => (&mut member.attrs, &member.vis),
            ImplItem::Fn(member) => {
                member.block = parse_quote!({});
                strip_signature(&mut member.sig);
                // The trait says what methods there are.
                if of_trait {
                    return false;
                }
                (&mut member.attrs, &member.vis)
            }
            _ => return false,
        };
        let keep = !is_skipped(attributes) && (of_trait || matches!(visibility, Visibility::Public(_)));
        strip_attributes(attributes);
        keep
    });
    item
}

fn strip_trait_item(item: &mut TraitItem) {
    match item {
        TraitItem::Const(item) => strip_attributes(&mut item.attrs),
        TraitItem::Type(item) => strip_attributes(&mut item.attrs),
        TraitItem::Fn(item) => {
            strip_attributes(&mut item.attrs);
            strip_signature(&mut item.sig);
            // That there is a default matters to who implements the trait; what it does is documented.
            if let Some(block) = &mut item.default {
                block.stmts.clear();
            }
        }
        _ => {}
    }
}

/// Whether a parameter is `mut` inside is no user's business.
fn strip_signature(signature: &mut Signature) {
    for input in &mut signature.inputs {
        match input {
            FnArg::Receiver(receiver) if !matches!(receiver.kind, ReceiverKind::Reference(..)) => {
                receiver.mutability = None;
            }
            FnArg::Typed(typed) => {
                if let Pat::Ident(pattern) = &mut *typed.pat {
                    pattern.mutability = None;
                }
            }
            FnArg::Receiver(_) => {}
        }
    }
}

/// Private fields become one that says no more than that there are some: whether there are decides who can build the
/// struct. In a tuple each keeps its place.
fn strip_fields(fields: &mut Fields) {
    let is_private = |field: &syn::Field| !matches!(field.vis, Visibility::Public(_));
    let hidden = fields.iter().find(|field| is_private(field)).cloned();
    fields.iter_mut().for_each(|field| strip_attributes(&mut field.attrs));
    match fields {
        Fields::Named(named) => {
            named.named = named.named.iter().filter(|field| !is_private(field)).cloned().collect();
            if let Some(mut field) = hidden {
                field.attrs.clear();
                field.vis = Visibility::Inherited;
                field.ident = Some(parse_quote!(_private));
                field.ty = parse_quote!(_);
                named.named.push(field);
            }
        }
        Fields::Unnamed(unnamed) => {
            for field in unnamed.unnamed.iter_mut().filter(|field| is_private(field)) {
                field.vis = Visibility::Inherited;
                field.ty = parse_quote!(_);
            }
        }
        Fields::Unit => {}
    }
}

/// A number or a text is what users may rely on; how anything else comes about is not.
fn strip_value(value: &mut Expr) {
    if !matches!(value, Expr::Lit(_)) {
        *value = parse_quote!(_);
    }
}

fn strip_attributes(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        attribute.path().segments.last().is_some_and(|segment| KEPT.iter().any(|kept| segment.ident == kept))
    });
}

/// The items as Rust, laid out in one way.
pub(crate) fn render(items: &[Item]) -> String {
    prettyplease::unparse(&syn::File { shebang: None, frontmatter: None, attrs: Vec::new(), items: items.to_vec() })
}
