//! Changing a YAML document where it says something else, and nowhere else.

use std::str::FromStr;

use serde_json::Value;
use yaml_edit::migrate::to_yaml_1_2;
use yaml_edit::{Document, Mapping, Sequence, YamlFile, YamlNode};

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(&'static str),
    Index(usize),
}

/// Something to be added.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edit {
    /// Where. Mappings on the way that are missing are added.
    pub(super) at: Vec<Step>,
    pub(super) what: Addition,
}

impl Edit {
    fn path(&self) -> String {
        let steps = self.at.iter().map(|step| match step {
            Step::Key(key) => (*key).to_owned(),
            Step::Index(index) => index.to_string(),
        });
        steps.collect::<Vec<_>>().join(".")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Addition {
    /// Under this key of the mapping there.
    Entry(&'static str, Value),
    /// At the end of the sequence there, which may be missing.
    Items(Vec<Value>),
}

/// The document with the edits, and whether its layout and comments were kept. `object` is what the document says.
///
/// The editor keeps what is written; that it wrote the right thing is read back with another parser. Where it did not,
/// as where an alias stands for what is to be changed, the document is written anew, unless something in it would then be
/// something else to kubectl, which reads numbers and truth values as YAML 1.1 has them.
pub(super) fn edited(document: &str, object: &Value, edits: &[Edit]) -> Result<(String, bool), String> {
    if edits.is_empty() {
        return Ok((ended(document.to_owned()), true));
    }
    let mut wanted = object.clone();
    for edit in edits {
        apply(&mut wanted, edit).ok_or_else(|| {
            let shape = if matches!(edit.what, Addition::Items(_)) { "list" } else { "mapping" };
            format!("{} is no {shape}: correct it", edit.path())
        })?;
    }
    if let Some(text) = in_place(document, edits).map(ended)
        && serde_saphyr::from_str::<Value>(&text).is_ok_and(|read| read == wanted)
    {
        return Ok((text, true));
    }
    let begin = if document.starts_with("---") { "---\n" } else { "" };
    let anew = ended(begin.to_owned() + &written(&wanted)?);
    if let Some(scalar) = ambiguous(document).or_else(|| ambiguous(&anew)) {
        let alias = alias(document).map_or_else(String::new, |alias| format!(", as the alias {alias} makes necessary"));
        return Err(format!(
            "{scalar} means something else once the document is written anew{alias}: write in the alias's place what it \
             stands for, or {scalar} unmistakably"
        ));
    }
    Ok((anew, false))
}

/// A plain scalar that is not the same in YAML 1.1 and in YAML 1.2: `0400`, `yes`.
fn ambiguous(document: &str) -> Option<String> {
    let document = YamlFile::from_str(document).ok()?.documents().next()?;
    let rewritten = to_yaml_1_2(&document).into_iter().next().map(|rewrite| rewrite.before);
    rewritten.or_else(|| letter_in(&Place::Mapping(document.as_mapping()?)))
}

/// A letter that is a truth value to some parsers of YAML 1.1, and a text to others, kubectl's among them.
fn letter_in(place: &Place) -> Option<String> {
    let of = |node: YamlNode| match node.as_scalar() {
        Some(scalar) => {
            Some(scalar.value()).filter(|text| !scalar.is_quoted() && matches!(&**text, "y" | "Y" | "n" | "N"))
        }
        None => letter_in(&Place::new(&node)?),
    };
    match place {
        Place::Mapping(mapping) => mapping.values().find_map(of),
        Place::Sequence(sequence) => sequence.values().find_map(of),
    }
}

/// The first alias of a document, as it is written.
fn alias(document: &str) -> Option<String> {
    let root = YamlFile::from_str(document).ok()?.documents().next()?.as_mapping()?;
    alias_in(&Place::Mapping(root))
}

fn alias_in(place: &Place) -> Option<String> {
    let of = |node: YamlNode| match node.as_alias() {
        Some(alias) => Some(alias.value()),
        None => alias_in(&Place::new(&node)?),
    };
    match place {
        Place::Mapping(mapping) => mapping.values().find_map(of),
        Place::Sequence(sequence) => sequence.values().find_map(of),
    }
}

/// The text with the line end that whatever follows needs.
fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// As YAML in blocks.
pub(super) fn written(value: &Value) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| format!("cannot be written as YAML: {error}"))
}

fn apply(value: &mut Value, edit: &Edit) -> Option<()> {
    let mut place = value;
    for step in &edit.at {
        place = match step {
            Step::Key(key) => mapping(place)?.entry(*key).or_insert(Value::Null),
            Step::Index(index) => place.get_mut(index)?,
        };
    }
    match &edit.what {
        Addition::Entry(key, value) => drop(mapping(place)?.insert((*key).to_owned(), value.clone())),
        Addition::Items(items) => {
            if place.is_null() {
                *place = Value::Array(Vec::new());
            }
            place.as_array_mut()?.extend(items.iter().cloned());
        }
    }
    Some(())
}

/// A mapping, which nothing stands for too.
fn mapping(place: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    if place.is_null() {
        *place = Value::Object(serde_json::Map::new());
    }
    place.as_object_mut()
}

/// The document with the edits made in its text. `None` where the editor finds no place for one.
fn in_place(document: &str, edits: &[Edit]) -> Option<String> {
    let file = YamlFile::from_str(document).ok()?;
    let root = file.documents().next()?.as_mapping()?;
    for edit in edits {
        let mut place = Place::Mapping(root.clone());
        let mut steps = edit.at.iter();
        let mut missing = None;
        for step in steps.by_ref() {
            let next = match (&place, step) {
                (Place::Mapping(mapping), Step::Key(key)) => mapping.get(*key),
                (Place::Sequence(sequence), Step::Index(index)) => sequence.get(*index),
                _ => return None,
            };
            match (next.as_ref().and_then(Place::new), step) {
                (Some(next), _) => place = next,
                // Nothing is there, or the nothing that is written as null.
                (None, Step::Key(key)) => {
                    missing = Some(*key);
                    break;
                }
                (None, Step::Index(_)) => return None,
            }
        }
        match missing {
            None => place.add(&edit.what)?,
            Some(key) => {
                let value = nested(steps.as_slice(), &edit.what)?;
                place.add(&Addition::Entry(key, value))?;
            }
        }
    }
    Some(file.to_string())
}

/// What is to be added, with the mappings around it that are missing too.
fn nested(steps: &[Step], what: &Addition) -> Option<Value> {
    let mut value = Value::Null;
    apply(&mut value, &Edit { at: steps.to_vec(), what: what.clone() })?;
    Some(value)
}

/// A collection in the text.
enum Place {
    Mapping(Mapping),
    Sequence(Sequence),
}

impl Place {
    fn new(node: &YamlNode) -> Option<Self> {
        let mapping = node.as_mapping().cloned().map(Self::Mapping);
        mapping.or_else(|| node.as_sequence().cloned().map(Self::Sequence))
    }

    fn add(&self, what: &Addition) -> Option<()> {
        match (self, what) {
            (Self::Mapping(mapping), Addition::Entry(key, value)) => {
                let text = Document::from_str(&written(value).ok()?).ok()?;
                if let Some(value) = text.as_mapping() {
                    mapping.set(*key, value);
                } else if let Some(value) = text.as_sequence() {
                    mapping.set(*key, value);
                } else {
                    mapping.set(*key, text.as_scalar()?);
                }
            }
            (Self::Sequence(sequence), Addition::Items(items)) => {
                let text = Document::from_str(&written(&Value::Array(items.clone())).ok()?).ok()?;
                text.as_sequence()?.values().for_each(|item| sequence.push(item));
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn label(value: &str) -> Edit {
        let at = vec![Step::Key("metadata"), Step::Key("labels")];
        Edit { at, what: Addition::Entry("new", json!(value)) }
    }

    fn items() -> Edit {
        Edit {
            at: vec![Step::Key("items"), Step::Index(1), Step::Key("env")],
            what: Addition::Items(vec![json!({"a": "1"})]),
        }
    }

    fn edit(document: &str, edits: &[Edit]) -> (String, bool) {
        let object = serde_saphyr::from_str(document).unwrap();
        edited(document, &object, edits).unwrap()
    }

    #[test]
    fn what_is_missing_is_added_around_and_what_is_there_stays() {
        for (document, expected) in [
            ("a: 1 # why\n", "a: 1 # why\nmetadata:\n  labels:\n    new: x\n"),
            ("metadata: {} # none\n", "metadata: {labels: {new: x}} # none\n"),
            ("metadata:\n  labels: {a: b}\n", "metadata:\n  labels: {a: b, new: x}\n"),
            ("metadata:\n  labels:\n  name: n\n", "metadata:\n  labels:\n    new: x\n  name: n\n"),
        ] {
            let (text, kept) = edit(document, &[label("x")]);
            assert!(kept, "{document}: {text}");
            assert_eq!(text, expected, "{document}");
        }
        let (text, kept) = edit("items:\n- {}\n- env:\n  - b: 2 # two\n\n# end\n", &[items()]);
        assert!(kept && text.contains("- b: 2 # two\n") && text.ends_with("# end\n"), "{text}");
        assert!(edit("items: [{}, {}]\n", &[items()]).1);
    }

    #[test]
    fn values_that_look_like_something_else_stay_text() {
        for value in ["true", "9090", "null", "~", "1e3", "yes", "a: b", "# x", "", " x", "*x", "\u{e9}\n\"'"] {
            let (text, kept) = edit("metadata:\n  labels:\n    a: b\n", &[label(value)]);
            let read: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(read["metadata"]["labels"]["new"], json!(value), "{text}");
            assert!(kept, "{text}");
        }
    }

    #[test]
    fn an_alias_is_not_changed_through() {
        let document = "---\n# comment\nselector: &labels\n  app: web\nmetadata:\n  labels: *labels\n";
        let (text, kept) = edit(document, &[label("x")]);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        let expected = json!({"selector": {"app": "web"}, "metadata": {"labels": {"app": "web", "new": "x"}}});
        assert_eq!((read, kept), (expected, false), "{text}");
        assert!(text.starts_with("---\n"));

        let document = "selector: *l\nmetadata:\n  labels: &l\n    app: web\n";
        assert!(serde_saphyr::from_str::<Value>(document).is_err());
        let document = "metadata:\n  labels: &l\n    app: web\nselector: *l\n";
        let (text, kept) = edit(document, &[label("x")]);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!((&read["selector"], kept), (&json!({"app": "web"}), false), "{text}");
    }

    #[test]
    fn what_would_mean_something_else_is_not_written_anew() {
        let document = |scalar: &str| format!("a: &l\n  app: web\nmetadata:\n  labels: *l\nmode: {scalar}\n");
        let of = |document: &str| {
            let object = serde_saphyr::from_str(document).unwrap();
            edited(document, &object, &[label("x")])
        };
        for scalar in ["0400", "0644", "yes", "Off", "1_000", "y", "N"] {
            let refused = of(&document(scalar)).unwrap_err();
            assert!(refused.contains(scalar) && refused.contains("the alias *l"), "{refused}");
        }
        for (scalar, value) in
            [("256", json!(256)), ("true", json!(true)), ("\"0400\"", json!("0400")), ("1.5", json!(1.5))]
        {
            let (text, kept) = of(&document(scalar)).unwrap();
            let read: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!((&read["mode"], kept, ambiguous(&text)), (&value, false, None), "{text}");
        }
        // What is changed in place keeps what it says.
        let (text, kept) = edit("mode: 0400\nmetadata:\n  labels:\n    a: b\n", &[label("x")]);
        assert!(kept && text.starts_with("mode: 0400\n"), "{text}");
    }

    #[test]
    fn what_has_another_shape_is_refused() {
        let object = json!({"metadata": "text"});
        assert!(edited("metadata: text\n", &object, &[label("x")]).is_err());
        let object = json!({"items": [1]});
        assert!(edited("items: [1]\n", &object, &[items()]).is_err());
    }
}
