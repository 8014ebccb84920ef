//! Results of suites: cases judged against the native run and the list of gaps, one table at the end.

use crate::gaps::Gaps;
use crate::run::Done;
use std::collections::BTreeMap;

/// How one case ended in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Passed,
    Skipped(String),
    Failed(String),
}

impl Ending {
    /// Of a case that is one command, which went well if `good`; else the last `lines` of what it said tell why.
    pub(crate) fn of(done: &Done, good: bool, lines: usize) -> Ending {
        if good {
            Ending::Passed
        } else {
            Ending::Failed(format!("{}: {}", done.ending(), done.tail(lines)))
        }
    }
}

/// Cases by name, in one place.
pub(crate) type Cases = BTreeMap<String, Ending>;

/// A suite's result.
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    pub(crate) passed: usize,
    pub(crate) skipped: usize,
    pub(crate) known: usize,
    /// One line for each failure.
    pub(crate) failures: Vec<String>,
}

impl Suite {
    /// An empty result.
    pub(crate) fn new(name: &str) -> Suite {
        Suite {
            name: name.to_owned(),
            seconds: 0.0,
            passed: 0,
            skipped: 0,
            known: 0,
            failures: Vec::new(),
        }
    }

    /// A suite that consists of one command.
    pub(crate) fn of_command(name: &str, done: &Done) -> Suite {
        let mut suite = Suite::new(name);
        suite.seconds = done.seconds;
        if done.ok() {
            suite.passed = 1;
        } else {
            suite
                .failures
                .push(format!("{}\n{}", done.ending(), done.tail(40)));
        }
        suite
    }

    /// A suite that could not run.
    pub(crate) fn broken(name: &str, why: &str) -> Suite {
        let mut suite = Suite::new(name);
        suite.failures.push(why.to_owned());
        suite
    }

    /// Counts one check.
    pub(crate) fn check(&mut self, case: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => self.failures.push(format!("{case}: {why}")),
        }
    }

    /// Judges the cases of a native run alone.
    pub(crate) fn judge_native(&mut self, native: &Cases) {
        for (case, ending) in native {
            match ending {
                Ending::Passed => self.passed += 1,
                Ending::Skipped(_) => self.skipped += 1,
                Ending::Failed(why) => self.failures.push(format!("{case}: natively: {why}")),
            }
        }
    }

    /// Judges a run in the mount: what passes natively must pass there, except for listed gaps, which must fail.
    pub(crate) fn judge(&mut self, gaps: &Gaps, native: &Cases, mount: &Cases) {
        for (case, reference) in native {
            let here = mount
                .get(case)
                .cloned()
                .unwrap_or(Ending::Failed("no result".to_owned()));
            let gap = gaps.reason(&self.name, case);
            match (reference, here) {
                (Ending::Failed(why), _) => self.failures.push(format!("{case}: natively: {why}")),
                (_, Ending::Passed) if gap.is_some() => {
                    self.failures.push(format!(
                        "{case}: passes now: remove it from c-tests/gaps.txt"
                    ));
                }
                (_, Ending::Passed) => self.passed += 1,
                (_, Ending::Failed(_)) if gap.is_some() => self.known += 1,
                (_, Ending::Failed(why)) => self.failures.push(format!("{case}: {why}")),
                (Ending::Skipped(_), Ending::Skipped(_)) => self.skipped += 1,
                (Ending::Passed, Ending::Skipped(_)) if gap.is_some() => self.known += 1,
                (Ending::Passed, Ending::Skipped(why)) => {
                    self.failures
                        .push(format!("{case}: skipped only in the mount: {why}"));
                }
            }
        }
    }

    /// Nothing failed.
    pub(crate) fn ok(&self) -> bool {
        self.failures.is_empty()
    }

    /// Prints the suite's line and its failures, at most `limit` of them.
    pub(crate) fn print(&self, limit: usize) {
        println!(
            "  {:<12} {:>5} passed {:>4} failed {:>4} gaps {:>4} skipped {:>7.1} s",
            self.name,
            self.passed,
            self.failures.len(),
            self.known,
            self.skipped,
            self.seconds
        );
        for failure in self.failures.iter().take(limit) {
            println!("      FAIL {}", failure.replace('\n', "\n           "));
        }
        if self.failures.len() > limit {
            println!(
                "      ... and {} more, see target/xtask-logs",
                self.failures.len() - limit
            );
        }
    }
}

/// Reads the lines `ok NAME`, `ok NAME # skip WHY` and `not ok NAME: WHY` of a test program.
pub(crate) fn parse_cases(output: &str) -> Cases {
    let mut cases = Cases::new();
    for line in output.lines() {
        if let Some(rest) = line.strip_prefix("not ok ") {
            let (name, why) = rest.split_once(": ").unwrap_or((rest, "failed"));
            cases.insert(name.to_owned(), Ending::Failed(why.to_owned()));
        } else if let Some(rest) = line.strip_prefix("ok ") {
            let (name, ending) = match rest.split_once(" # skip ") {
                Some((name, why)) => (name, Ending::Skipped(why.to_owned())),
                None => (rest, Ending::Passed),
            };
            cases.entry(name.to_owned()).or_insert(ending);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_cases() {
        let cases =
            parse_cases("ok a/b\nnot ok a/c: line 3: x: y\nok a/d # skip needs root\nnoise\n");
        assert_eq!(cases["a/b"], Ending::Passed);
        assert_eq!(cases["a/c"], Ending::Failed("line 3: x: y".to_owned()));
        assert_eq!(cases["a/d"], Ending::Skipped("needs root".to_owned()));
        assert_eq!(cases.len(), 3);
    }

    #[test]
    fn a_failure_is_not_hidden_by_a_later_ok() {
        let cases = parse_cases("not ok a/b: why\nok a/b\n");
        assert!(matches!(cases["a/b"], Ending::Failed(_)));
    }
}
