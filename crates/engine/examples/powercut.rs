//! Power failures of real programs, for `cargo xtask test --suite power`.
//!
//! `powercut make TAPE RANKDIR...` begins a tape; programs that run with `PIL4DFS_TAPE=TAPE` under a
//! library built with the feature `testing` write to it. `powercut mark NUMBER` puts a mark on it.
//! `powercut cuts TAPE COUNT SEED [POINT] -- COMMAND...` lets the power fail at COUNT points of the
//! tape: the rank directories get what would be left, and the command is run with the last mark
//! before the point as one more argument; it fails if what it finds is wrong.

use engine::testing::{Disk, Event, Fate, tape};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const FATES: [Fate; 6] = [
    Fate::Lost,
    Fate::Kept,
    Fate::Pages,
    Fate::Torn,
    Fate::Pages,
    Fate::Torn,
];
/// Where a log says in which start of the machine it was made or last recovered.
const LOG_BOOT_AT: u64 = 40;

/// splitmix64.
fn next(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["make", path, ranks @ ..] => {
            let ranks: Vec<PathBuf> = ranks.iter().map(PathBuf::from).collect();
            tape::make(Path::new(path), &ranks);
            tape::mark(0);
        }
        ["mark", number] => tape::mark(number.parse().expect("number")),
        ["cuts", path, count, seed, "--", command @ ..] => {
            let (count, seed) = (count.parse().expect("count"), seed.parse().expect("seed"));
            return cuts(Path::new(path), count, seed, None, command);
        }
        ["cuts", path, _, seed, point, "--", command @ ..] => {
            let (seed, point) = (seed.parse().expect("seed"), point.parse().expect("point"));
            return cuts(Path::new(path), 1, seed, Some(point), command);
        }
        _ => {
            eprintln!("powercut make | mark | cuts: see the source");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn cuts(path: &Path, count: usize, seed: u64, only: Option<usize>, command: &[&str]) -> ExitCode {
    tape::open(path);
    let ranks = tape::ranks();
    let events = tape::stop();
    let is_note = |event: &Event| matches!(event, Event::Note(_));
    let first = events.iter().position(is_note).expect("a mark");
    let mut dice = seed;
    let mut points: Vec<usize> = match only {
        Some(point) => vec![point],
        None => (0..count)
            .map(|_| first + (next(&mut dice) % (events.len() + 1 - first) as u64) as usize)
            .collect(),
    };
    points.sort_unstable();
    let mut disk = Disk::empty(&ranks);
    let (mut at, mut done) = (0, 0);
    for point in points {
        while at < point {
            if let Event::Note(mark) = events[at] {
                done = mark;
            }
            disk.step(&events[at]);
            at += 1;
        }
        let mut dice = seed << 32 ^ point as u64;
        let fate = FATES[(next(&mut dice) % FATES.len() as u64) as usize];
        for rank in &ranks {
            leave(&disk, rank, fate, next(&mut dice));
        }
        let (program, args) = command.split_first().expect("command");
        let status = Command::new(program)
            .args(args)
            .arg(done.to_string())
            .status();
        if !status.expect("command").success() {
            println!(
                "{fate:?} at event {point} of {}, mark {done}: wrong; seed and point {seed} {point} repeat this",
                events.len()
            );
            return ExitCode::FAILURE;
        }
    }
    println!("{count} points of {} events", events.len());
    ExitCode::SUCCESS
}

/// Puts what is left of a rank into its directory.
fn leave(disk: &Disk, rank: &Path, fate: Fate, seed: u64) {
    for name in ["data", "meta", "meta.new", "log"] {
        match std::fs::remove_file(rank.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
    disk.fail_rank(rank, fate, seed);
    // As after another start of the machine.
    let log = std::fs::File::options()
        .read(true)
        .write(true)
        .open(rank.join("log"));
    if let Ok(log) = log {
        let mut boot = [0; 8];
        log.read_exact_at(&mut boot, LOG_BOOT_AT).unwrap_or(());
        boot[0] ^= 1;
        log.write_all_at(&boot, LOG_BOOT_AT).expect("log");
    }
}
