//! Progress of long work: a bar on a terminal, nothing anywhere else.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// A progress bar on stderr.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar that counts bytes.
    pub(crate) fn bytes(what: &'static str) -> Bar {
        if !std::io::stderr().is_terminal() {
            return Bar { bar: None };
        }
        let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let bar = ProgressBar::new(0).with_message(what);
        match ProgressStyle::with_template(style) {
            Ok(style) => Bar {
                bar: Some(bar.with_style(style)),
            },
            Err(_) => Bar { bar: Some(bar) },
        }
    }

    /// A counter of things of which nobody knows how many there are.
    pub(crate) fn count(what: &'static str) -> Bar {
        let seen = std::io::stderr().is_terminal();
        Bar {
            bar: seen.then(|| ProgressBar::new_spinner().with_message(what)),
        }
    }

    /// Shows a count.
    pub(crate) fn at(&self, count: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(count);
        }
    }

    /// Shows how much of all is done.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Adds to what is to be done.
    pub(crate) fn grow(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
        }
    }

    /// Adds to what is done.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
