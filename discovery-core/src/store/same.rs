//! Whether two stored values are equal as parsed JSON.

use bytes::Bytes;

/// Equal as parsed JSON; byte for byte where either is no JSON.
pub(crate) fn same_value(a: &Bytes, b: &Bytes) -> bool {
    if a == b {
        return true;
    }
    if surely_different(a, b) {
        return false;
    }
    let parse = |bytes: &Bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    matches!((parse(a), parse(b)), (Some(a), Some(b)) if a == b)
}

/// Whether the first difference lies in a string or an integer that is a value: all before it is the same text, so both
/// values stand at the same place, and they differ. `false` where that is not so, and the whole must be parsed.
///
/// Nearly every update is of this form, and parsing both documents costs more than all the rest of an update.
fn surely_different(a: &[u8], b: &[u8]) -> bool {
    let at = shared(a, b);
    let Some(place) = Place::after(&a[..at]) else { return false };
    match place {
        // Without escapes, two texts are equal only where their bytes are.
        Place::Text => {
            let rest = |json: &[u8]| json[at..].iter().position(|byte| *byte == b'"').map(|end| at + end);
            let plain = |json: &[u8]| rest(json).is_some_and(|end| !json[at..end].contains(&b'\\'));
            plain(a) && plain(b)
        }
        Place::Integer(start) => {
            let integer = |json: &[u8]| {
                let end = json[start..].iter().position(|byte| !byte.is_ascii_digit()).map(|end| start + end)?;
                matches!(json[end], b',' | b'}' | b']').then(|| json[start..end].to_vec())
            };
            matches!((integer(a), integer(b)), (Some(a), Some(b)) if a != b && !a.is_empty() && !b.is_empty())
        }
    }
}

/// How many bytes both begin with, compared a word at a time.
fn shared(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = 16;
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD)).take_while(|(a, b)| a == b).count() * WORD;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

/// Where a text ends, when it ends inside a value.
enum Place {
    /// In a string without escapes so far.
    Text,
    /// In a run of digits, or right before one, that began here.
    Integer(usize),
}

impl Place {
    fn after(prefix: &[u8]) -> Option<Self> {
        // One bit for each container that is open: set for an object.
        let mut open: u64 = 1;
        // Whether a value comes next, and not a key.
        let mut value = true;
        let mut index = 0;
        while index < prefix.len() {
            match prefix[index] {
                b'{' | b'[' if open.leading_zeros() == 0 => return None,
                b'{' => (open, value) = (open << 1 | 1, false),
                b'[' => (open, value) = (open << 1, true),
                b'}' | b']' => open = (open >> 1).max(1),
                b':' => value = true,
                b',' => value = open & 1 == 0,
                b'"' => match prefix[index + 1..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
                    Some(end) if prefix[index + 1 + end] == b'\\' => return None,
                    Some(end) => index += end + 1,
                    None => return value.then_some(Self::Text),
                },
                _ => {}
            }
            index += 1;
        }
        let digits = prefix.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let start = prefix.len() - digits;
        let before = start.checked_sub(1).map(|before| prefix[before]);
        (value && matches!(before, Some(b':' | b'[' | b','))).then_some(Self::Integer(start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn same(a: &str, b: &str) -> bool {
        same_value(&Bytes::copy_from_slice(a.as_bytes()), &Bytes::copy_from_slice(b.as_bytes()))
    }

    #[test]
    fn equality_is_that_of_parsed_documents() {
        assert!(same(r#"{"a":1,"b":[2,"x"]}"#, r#"{ "b" : [2, "x"], "a" : 1 }"#));
        assert!(same(r#"{"a":"\u00e9"}"#, r#"{"a":"é"}"#));
        assert!(same(r#"{"a":1.0}"#, r#"{"a":1.00}"#));
        assert!(same(r#"{"a":10e1}"#, r#"{"a":100.0}"#));
        assert!(same(r#"{"ab":1,"ac":1}"#, r#"{"ac":1,"ab":1}"#));
        assert!(!same(r#"{"a":1}"#, r#"{"a":10}"#));
        assert!(!same(r#"{"a":"x"}"#, r#"{"a":"xy"}"#));
        assert!(!same("no json", "no  json"));
        assert!(same("no json", "no json"));
    }

    #[test]
    fn an_update_of_one_value_is_told_without_parsing() {
        assert!(surely_different(br#"{"a":{"b":[1,{"c":"x"}]}}"#, br#"{"a":{"b":[1,{"c":"y"}]}}"#));
        assert!(surely_different(br#"{"load":1,"z":0}"#, br#"{"load":2,"z":0}"#));
        assert!(surely_different(br#"{"load":12}"#, br#"{"load":123}"#));
        assert!(!surely_different(br#"{"load":1}"#, br#"{"load":1.0}"#));
        assert!(!surely_different(br#"{"a":1,"b":2}"#, br#"{"b":2,"a":1}"#));
        assert!(!surely_different(br#"{"a":"\u0078"}"#, br#"{"a":"x"}"#));
        assert!(!surely_different(br#"{"a":-1}"#, br#"{"a":-2}"#), "left to the parser");
    }

    /// Documents whose texts share much, so that they differ in every place.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            Just(json!(true)),
            (-2i64..120).prop_map(|n| json!(n)),
            (0i64..9).prop_map(|n| json!(n as f64 / 4.0)),
            "[ab\"\\\\é,:\\[\\]{}]{0,3}".prop_map(|text| json!(text)),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab,:]{0,2}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn what_is_told_without_parsing_is_so(a in document(), b in document(), pretty in any::<bool>()) {
            let text = |value: &Value, pretty: bool| if pretty {
                serde_json::to_string_pretty(value)
            } else {
                serde_json::to_string(value)
            };
            let (x, y) = (text(&a, false).expect("json"), text(&b, pretty).expect("json"));
            prop_assert_eq!(same(&x, &y), a == b, "{} {}", x, y);
        }
    }
}
