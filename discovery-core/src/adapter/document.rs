//! What is stored under a key: whose it is, which incarnation, and the value. Or that its owner took it away.
//!
//! One line of ASCII and then the value as it came: `<owner> <incarnation>\n<value>`, both in 16 hexadecimal digits, or
//! `<owner> withdrawn\n`.

use bytes::Bytes;

use crate::backend::Incarnation;

const DIGITS: usize = 16;
const WITHDRAWN: &[u8] = b"withdrawn";

/// A record as its document tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) incarnation: Incarnation,
    pub(super) value: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// The token of the handle that wrote it; `None` where something foreign did.
    pub(super) owner: Option<u64>,
    /// `None`: withdrawn by its owner, and kept for a while so that a late write finds the key taken.
    pub(super) live: Option<Live>,
}

pub(super) fn write(owner: u64, live: Option<&Live>) -> Bytes {
    match live {
        Some(Live { incarnation, value }) => {
            let mut document = format!("{owner:016x} {:016x}\n", incarnation.0).into_bytes();
            document.extend_from_slice(value);
            document.into()
        }
        None => [format!("{owner:016x} ").as_bytes(), WITHDRAWN, b"\n"].concat().into(),
    }
}

/// What cannot be read is a record of nobody's, its bytes the value: readers then report it, and its key can be taken.
/// Whether the key was absent meanwhile nobody knows of it.
pub(super) fn read(document: &Bytes) -> Document {
    ours(document).unwrap_or_else(|| {
        let live = Live { incarnation: Incarnation(0), value: document.clone() };
        Document { owner: None, live: Some(live) }
    })
}

fn ours(document: &Bytes) -> Option<Document> {
    let end = document.iter().take(2 * DIGITS + 2).position(|byte| *byte == b'\n')?;
    let owner = Some(number(document.get(..DIGITS)?)?);
    if *document.get(DIGITS)? != b' ' {
        return None;
    }
    let second = document.get(DIGITS + 1..end)?;
    if second == WITHDRAWN {
        return Some(Document { owner, live: None });
    }
    let live = Live { incarnation: Incarnation(number(second)?), value: document.slice(end + 1..) };
    Some(Document { owner, live: Some(live) })
}

fn number(digits: &[u8]) -> Option<u64> {
    let legal = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if digits.len() != DIGITS || !digits.iter().all(legal) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back() {
        let value = Bytes::from_static(b"{\"a\":\n1}");
        let live = Live { incarnation: Incarnation(u64::MAX), value };
        for live in [Some(live), Some(Live { incarnation: Incarnation(0), value: Bytes::new() }), None] {
            let document = write(7, live.as_ref());
            assert_eq!(read(&document), Document { owner: Some(7), live });
        }
    }

    #[test]
    fn what_is_foreign_is_a_record_of_nobodys() {
        let head = "0000000000000007 ";
        let texts = ["", "x", "{}\n", "0000000000000007", head, "000000000000000G withdrawn\n"].map(str::to_owned);
        let cut = [format!("{head}withdraw\n"), format!("{head}00000000000000\n{{}}"), format!("{head}withdrawn")];
        for text in texts.into_iter().chain(cut) {
            let document = read(&text.clone().into());
            let live = Live { incarnation: Incarnation(0), value: text.clone().into() };
            assert_eq!(document, Document { owner: None, live: Some(live) }, "{text:?}");
        }
    }
}
