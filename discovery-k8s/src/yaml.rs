//! JSON that YAML reads alike. The API server reads what is applied as YAML, which takes some characters for the end of a
//! line, folds blanks beside them, and allows others nowhere: a quoted text means the same in both once they are spelled out.

use discovery_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Whether YAML reads a character, where it stands as such, otherwise than JSON does. All of them have four digits.
pub(crate) fn is_special(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// The text of a body, without such characters.
///
/// # Errors
/// [`ErrorKind::Internal`] for what is no JSON.
pub(crate) fn body(value: &impl Serialize) -> Result<Box<RawValue>> {
    let failed = |error| Error::new(ErrorKind::Internal, "the body is no JSON: please report it").with_source(error);
    let text = to_raw_value(value).map_err(failed)?;
    if !text.get().contains(is_special) {
        return Ok(text);
    }
    let mut spelled = String::with_capacity(text.get().len() + 64);
    for c in text.get().chars() {
        // JSON's own marks are none of them: they stand in texts alone.
        if is_special(c) {
            spelled.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            spelled.push(c);
        }
    }
    RawValue::from_string(spelled).map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_yaml_reads_otherwise_is_spelled_out_and_means_the_same() {
        let special = "\u{7f}\u{80}\u{85}\u{9f}\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}";
        let plain = "\t\"\\é\u{a0}\u{2027}\u{fffd}\u{1f600}\u{1fffe}";
        let value = json!({ special: [special, { plain: plain }] });
        let text = body(&value).unwrap();
        assert!(!text.get().contains(is_special), "{text}");
        assert!(text.get().contains(r"\u007f\u0080\u0085\u009f\u2028\u2029\ufeff\ufffe\uffff"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(text.get()).unwrap(), value);
        let rest = json!({ plain: 1 });
        assert_eq!(body(&rest).unwrap().get(), rest.to_string(), "what needs nothing is as it was");
    }
}
