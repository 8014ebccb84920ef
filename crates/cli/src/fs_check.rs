//! `daos fs check`: names, counts, block maps and, if asked, copies; repairs what it is told to.

use crate::names::ContArgs;
use crate::output::{Failure, Reply, Tool, say};
use crate::progress::Bar;
use crate::session::{now_ns, open_container};
use crate::view::View;
use clap::Args;
use daos_types::format_utc;
use dfs::{Checked, Ino, Leaks, Problem};
use sys::Errno;

/// Arguments of `fs check`.
#[derive(Args, Debug)]
pub(crate) struct FsCheckArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// What to do, comma separated: print, remove, relink, verify, evict, repair
    #[arg(short = 'f', long)]
    flags: Option<String>,
    /// Directory below /lost+found for relinked files (default: the time)
    #[arg(short = 'n', long)]
    dir_name: Option<String>,
}

/// The flags of `fs check`; `repair` is ours: counts and entries are mended, leaked files stay.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Flags {
    remove: bool,
    relink: bool,
    verify: bool,
    evict: bool,
    repair: bool,
}

impl Flags {
    fn parse(text: &str) -> Result<Flags, Failure> {
        let mut flags = Flags::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word {
                // What is found is printed in any case.
                "print" => {}
                "remove" => flags.remove = true,
                "relink" => flags.relink = true,
                "verify" => flags.verify = true,
                "evict" => flags.evict = true,
                "repair" => flags.repair = true,
                _ => {
                    return Err(Failure::usage(format!(
                        "invalid argument for flag `-f, --flags' (expected main.FsCheckFlag): \
                         unknown filesystem check flags: {word:?}"
                    )));
                }
            }
        }
        if flags.remove && flags.relink {
            return Err(Failure::usage(
                "--flags: leaked files are removed or relinked, not both",
            ));
        }
        Ok(flags)
    }

    fn changes(self) -> bool {
        self.remove || self.relink || self.repair
    }
}

/// A line of the checker. Nobody may be reading: the exit code still tells.
fn line(text: &str) {
    say(&format!("DFS checker: {text}\n"));
}

/// `2026-11-22-12:05:25`.
fn stamp(ns: i64) -> String {
    let text: String = format_utc(ns.into()).chars().take(19).collect();
    text.replace([' ', 'T'], "-")
}

/// `fs check`.
pub(crate) fn fs_check(tool: Tool, args: FsCheckArgs) -> Result<Reply, Failure> {
    const OUTER: &str = "failed fs check";
    let flags = Flags::parse(args.flags.as_deref().unwrap_or_default())?;
    let start = now_ns();
    let name = match args.dir_name {
        Some(name) if matches!(name.as_str(), "" | "." | "..") || name.contains('/') => {
            let why = format!("-n, --dir-name: {name:?} is no name of a directory");
            return Err(Failure::usage(why));
        }
        Some(name) if flags.relink => name,
        _ => stamp(start),
    };
    let mut opened = open_container(args.cont.split(0, 0)?, OUTER)?;
    line(&format!("Start ({})", stamp(start)));
    let busy = opened.pool.container_is_open(&opened.info)?;
    if busy && (!flags.evict || flags.changes()) {
        return Err(Failure::errno(OUTER, Errno::EBUSY).because(
            "programs use the container; end them, or look only: --flags=evict \
             (what they change meanwhile may show up as a problem)",
        ));
    }
    opened = opened.hold(OUTER)?;
    let view = opened.view(OUTER)?;
    let fail = |errno| Failure::errno(OUTER, errno);
    line("Create OIT table");
    line("Iterating namespace and marking objects");
    let found = look(&view, flags.verify).map_err(fail)?;
    let seconds = |from: i64| (now_ns() - from) / 1_000_000_000;
    line(&format!(
        "marked {} files/directories (runtime: {} sec))",
        found.files + found.dirs,
        seconds(start)
    ));
    if flags.relink {
        line(&format!(
            "Leaked OIDs will be inserted in /lost+found/{name}"
        ));
    }
    line("Checking unmarked OIDs (Pass 1)");
    for problem in &found.problems {
        line(&problem.to_string());
    }
    if flags.changes() && !found.problems.is_empty() {
        mend(&view, flags, &name, &found).map_err(fail)?;
    }
    if flags.relink {
        line("Checking unmarked OIDs (Pass 2)");
    }
    line(&format!("Done! (runtime: {} sec)", seconds(start)));
    line(&format!(
        "Number of leaked OIDs in namespace = {}",
        leaked(&found)
    ));
    tool.done("")
}

/// One check, with a counter on a terminal.
fn look(view: &View, copies: bool) -> sys::Result<Checked> {
    let bar = Bar::count("Checking");
    let found = view.check(copies, &mut |seen| bar.at(seen));
    bar.finish();
    found
}

fn leaked(found: &Checked) -> u64 {
    let inodes = found.problems.iter().map(|problem| match problem {
        Problem::Leaked { inodes, .. } => *inodes,
        _ => 0,
    });
    inodes.sum()
}

/// Mends what can be mended, and says what is left.
fn mend(view: &View, flags: Flags, name: &str, found: &Checked) -> sys::Result<()> {
    let leaks = match leaked(found) {
        0 => Leaks::Keep,
        _ if flags.relink => Leaks::Relink {
            to: lost_and_found(view, name)?,
        },
        _ if flags.remove => Leaks::Remove {
            by: lost_and_found(view, name)?,
        },
        _ => Leaks::Keep,
    };
    let mended = view.repair(&found.problems, leaks)?;
    if let Leaks::Remove { .. } = leaks {
        remove_lost(view, name)?;
    }
    line(&format!("repaired {mended}"));
    for problem in look(view, false)?.problems {
        line(&format!("left: {problem}"));
    }
    Ok(())
}

/// `/lost+found/NAME`, made if it is not there.
fn lost_and_found(view: &View, name: &str) -> sys::Result<Ino> {
    let top = match view.lookup(view.root(), b"lost+found")? {
        Some(top) => top,
        None => view.mkdir(view.root(), b"lost+found", 0o700)?,
    };
    match view.lookup(top, name.as_bytes())? {
        Some(dir) => Ok(dir),
        None => view.mkdir(top, name.as_bytes(), 0o700),
    }
}

/// Removes the directory through which leaked files went, and `/lost+found` if that was all.
fn remove_lost(view: &View, name: &str) -> sys::Result<()> {
    if let Some(top) = view.lookup(view.root(), b"lost+found")? {
        view.rmdir(top, name.as_bytes())?;
        match view.rmdir(view.root(), b"lost+found") {
            Err(Errno::ENOTEMPTY) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_words() {
        let both = Flags {
            relink: true,
            verify: true,
            ..Flags::default()
        };
        assert_eq!(Flags::parse("relink,verify").ok(), Some(both));
        assert_eq!(Flags::parse("").ok(), Some(Flags::default()));
        assert!(Flags::parse("bogus").is_err());
        assert!(Flags::parse("remove,relink").is_err());
    }

    #[test]
    fn stamps_read_like_dates() {
        assert_eq!(stamp(1_795_349_106_000_000_000), "2026-11-22-12:05:06");
    }
}
