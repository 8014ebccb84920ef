//! The list of known gaps, `c-tests/gaps.txt`: one per line, `SUITE CASE REASON`.
//!
//! A listed gap must still fail; one that passes is a failure ("remove it"), so that the list can only tell the truth.

use crate::Failure;
use crate::workspace;
use std::collections::BTreeMap;

/// Known gaps by suite and case.
pub(crate) struct Gaps(BTreeMap<(String, String), String>);

impl Gaps {
    /// Reads the list.
    pub(crate) fn load() -> Result<Gaps, Failure> {
        let path = workspace::root().join("c-tests/gaps.txt");
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Gaps::parse(&text)
    }

    fn parse(text: &str) -> Result<Gaps, Failure> {
        let mut gaps = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.splitn(3, char::is_whitespace);
            match (words.next(), words.next(), words.next()) {
                (Some(suite), Some(case), Some(reason)) => {
                    gaps.insert(
                        (suite.to_owned(), case.to_owned()),
                        reason.trim().to_owned(),
                    );
                }
                _ => {
                    return Err(
                        format!("gaps.txt line {}: expected SUITE CASE REASON", at + 1).into(),
                    );
                }
            }
        }
        Ok(Gaps(gaps))
    }

    /// Why this case is known to fail, if it is.
    pub(crate) fn reason(&self, suite: &str, case: &str) -> Option<&str> {
        self.0
            .get(&(suite.to_owned(), case.to_owned()))
            .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_suite_case_reason() {
        let gaps = Gaps::parse("# comment\n\nposix open/x  has no y \n").unwrap();
        assert_eq!(gaps.reason("posix", "open/x"), Some("has no y"));
        assert_eq!(gaps.reason("posix", "open/y"), None);
        assert_eq!(gaps.reason("stress", "open/x"), None);
    }

    #[test]
    fn a_gap_without_a_reason_is_refused() {
        assert!(Gaps::parse("posix open/x\n").is_err());
    }
}
