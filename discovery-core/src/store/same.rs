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
    let before = &a[..at];
    if before.contains(&b'\\') {
        return false;
    }
    // Without escapes, every second quote ends a string.
    let in_text = before.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
    if in_text { is_value(a, at) && is_value(b, at) } else { integers_differ(a, b, at) }
}

/// Whether the string that goes on at `at` is a value, and not a key, and has no escapes there: then two texts are equal
/// only where their bytes are.
fn is_value(json: &[u8], at: usize) -> bool {
    let Some(end) = json[at..].iter().position(|byte| *byte == b'"').map(|end| at + end) else { return false };
    let next = json[end + 1..].iter().find(|byte| !byte.is_ascii_whitespace());
    next != Some(&b':') && !json[at..end].contains(&b'\\')
}

/// Digits of which every number is read exactly.
const EXACT: usize = 19;

/// Whether other digits go on at `at` where a value is a run of digits. Outside of strings, digits are values.
fn integers_differ(a: &[u8], b: &[u8], at: usize) -> bool {
    let start = at - a[..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if !matches!(start.checked_sub(1).map(|before| a[before]), Some(b':' | b'[' | b',')) {
        return false;
    }
    let integer = |json: &[u8]| {
        let end = json[start..].iter().position(|byte| !byte.is_ascii_digit()).map(|end| start + end)?;
        ((start + 1..=start + EXACT).contains(&end) && matches!(json[end], b',' | b'}' | b']')).then_some(end)
    };
    matches!((integer(a), integer(b)), (Some(one), Some(other)) if a[start..one] != b[start..other])
}

/// How many bytes both begin with, compared a word at a time.
fn shared(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = 16;
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD)).take_while(|(a, b)| a == b).count() * WORD;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
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
        assert!(same(r#"{"a":18446744073709551616}"#, r#"{"a":18446744073709551617}"#), "one number to serde_json");
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
