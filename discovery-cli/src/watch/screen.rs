//! The terminal as a screen of its own.

use std::io::{self, Write};

use crate::failure::{Failure, Outcome};

/// The other screen, without a cursor. Dropping it brings the first one back.
pub(super) struct Screen(());

impl Screen {
    pub(super) fn enter() -> Outcome<Self> {
        write("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Self(()))
    }

    /// Shows these lines and nothing else. Written in one piece, so that nothing flickers.
    pub(super) fn show(&self, lines: &[String]) -> Outcome {
        let mut text = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            if n > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[0m\x1b[K");
        }
        text.push_str("\x1b[J");
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone, and then nothing is to be restored.
        let _ = write("\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}
