//! Prints the interface this process would use, and why: start it under a launcher to see what the
//! ranks of a job would do.
//!
//! `nic-choice [--dir DIR [--at-once] [--hold]] [--cpu-bind BINDING]`
//!
//! The node is this machine, or what `DAOS_TOPOLOGY_FILE` or `DAOS_TOPOLOGY_ROOT` name. With a
//! directory of their own, `--dir`, the ranks do as in an MPI job: all join (`MPI_Init`), all choose,
//! all end. `--at-once` chooses without waiting for the others to join; `--hold` ends when the input
//! does. `--cpu-bind` takes the rank's CPUs from a binding instead of the kernel, for a recorded node
//! larger than this machine.

use std::error::Error;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use topology::Topology;
use topology::binding::Binding;
use topology::launcher::local_identity;
use topology::select::{FILE_VARIABLE, Selection, Session};

const WAIT_MAX: Duration = Duration::from_secs(30);
/// Looking costs each rank as much as there are ranks: they share the machine's time.
const PAUSE_PER_RANK: Duration = Duration::from_millis(4);

#[derive(Default)]
struct Arguments {
    dir: Option<PathBuf>,
    at_once: bool,
    hold: bool,
    binding: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--dir" => parsed.dir = Some(value()?.into()),
            "--cpu-bind" => parsed.binding = Some(value()?),
            "--at-once" => parsed.at_once = true,
            "--hold" => parsed.hold = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(parsed)
}

/// Waits until `count` says `size`; who sees it first tells those that look too late, when some
/// have gone on and ended.
fn barrier(
    flag: &Path,
    size: usize,
    count: impl Fn() -> Option<usize>,
) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + WAIT_MAX;
    while !flag.exists() {
        if count().is_none_or(|count| count >= size) {
            std::fs::write(flag, "")?;
        } else if Instant::now() > deadline {
            return Err("not all ranks of this node came in time".into());
        }
        std::thread::sleep(PAUSE_PER_RANK * u32::try_from(size)?);
    }
    Ok(())
}

fn print(session: &Session, selection: &Selection) -> std::io::Result<()> {
    let local = session
        .identity
        .local
        .map_or("- -".to_owned(), |l| format!("{} {}", l.rank, l.size));
    let interface = selection.handover.interface.as_deref().unwrap_or("-");
    let launcher = session
        .identity
        .launcher
        .map_or("none".to_owned(), |l| l.to_string());
    let mut line = format!(
        "{local} {interface} | {launcher} | {}",
        selection.report().join("; ")
    );
    for (name, value) in &selection.handover.set {
        line.push_str(&format!(" | {name}={value}"));
    }
    for note in selection.notes.iter().chain(&selection.handover.warnings) {
        line.push_str(&format!(" | {note}"));
    }
    // One write, so that lines of several ranks do not mix.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let environment = |name: &str| std::env::var(name).ok();
    let mut cpus = None;
    if let (Some(text), Some(local)) = (arguments.binding, local_identity(&environment).local) {
        let file = environment(FILE_VARIABLE).ok_or(format!("--cpu-bind needs {FILE_VARIABLE}"))?;
        let node = Topology::load(file.as_ref())?;
        let all = Binding::parse(&text, None)?.cpus_of_ranks(&node, local.size)?;
        cpus = all.into_iter().nth(local.rank);
    }
    let Some(dir) = arguments.dir else {
        let session = Session::start(&environment);
        return Ok(print(&session, &session.choose(&environment))?);
    };
    let session = Session::start_in(&environment, Some(dir.clone()), cpus);
    let size = session.identity.local.map_or(1, |local| local.size);
    if !arguments.at_once {
        barrier(&dir.join("all-joined"), size, || session.peer_count())?;
    }
    print(&session, &session.choose(&environment))?;
    if arguments.hold {
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    barrier(&dir.join("all-chosen"), size, || session.chosen_count())
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ERROR: nic-choice: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
