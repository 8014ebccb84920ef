//! `daos container check`: whether the namespace of a container is whole.

use crate::names::ContArgs;
use crate::output::{Failure, Reply, Tool};
use crate::progress::Bar;
use crate::session::{now_ns, open_container};
use clap::Args;
use daos_types::format_utc;
use std::io::Write;

/// Arguments of `container check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    cont: ContArgs,
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A time as `ctime(3)` writes it, in UTC: `Sun Nov 22 12:05:06 2026`.
fn ctime(ns: i64) -> String {
    let text = format_utc(ns.into());
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<usize>().ok();
    let day = DAYS[ns.div_euclid(86_400_000_000_000).rem_euclid(7) as usize];
    let month = number(5..7).and_then(|month| MONTHS.get(month.wrapping_sub(1)).copied());
    let clock = text.get(11..19).unwrap_or_default();
    let year = text.get(..4).unwrap_or_default();
    format!(
        "{day} {} {:>2} {clock} {year}",
        month.unwrap_or("???"),
        number(8..10).unwrap_or(0)
    )
}

/// `container check`: names, counts, block maps, and the copies of all data. Counted are files and
/// directories; skipped are those copies that cannot be read because their rank is gone.
pub(crate) fn check(tool: Tool, args: CheckArgs) -> Result<Reply, Failure> {
    let names = args.cont.split(0, 0)?;
    let name = names.cont.clone();
    let start = now_ns();
    let outer = format!("failed to check container {name}");
    let mut opened = open_container(names, "")?.hold(&outer)?;
    let view = opened.view(&outer)?;
    let bar = Bar::count("Checking");
    let found = view
        .check(true, &mut |seen| bar.at(seen))
        .map_err(|e| Failure::errno(&outer, e))?;
    bar.finish();
    let end = now_ns();
    let mut lines = String::new();
    for problem in &found.problems {
        lines.push_str(&format!("found data inconsistency: {problem}\n"));
    }
    // The report follows on stdout whether or not anybody reads this.
    std::io::stderr().write_all(lines.as_bytes()).unwrap_or(());
    let seconds = (end - start) / 1_000_000_000;
    let checked = found.dirs + found.files;
    let text = format!(
        "check container {name} started at: {}\n\ncheck container {name} completed at: {}\n\n\
         checked: {checked}\nskipped: {}\ninconsistent: {}\nrun_time: {seconds} seconds\n\
         scan_speed: {} objs/sec\n",
        ctime(start),
        ctime(end),
        found.unreadable,
        found.problems.len(),
        checked.checked_div(seconds.unsigned_abs()).unwrap_or(0),
    );
    tool.done(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_like_ctime() {
        assert_eq!(ctime(1_795_349_106_000_000_000), "Sun Nov 22 12:05:06 2026");
        assert_eq!(ctime(1_709_251_199_000_000_000), "Thu Feb 29 23:59:59 2024");
        assert_eq!(ctime(1_609_459_200_000_000_000), "Fri Jan  1 00:00:00 2021");
    }
}
