//! `daos fabric run`: chooses the interface of this process, sets what libdaos reads, and becomes the
//! program. The process keeps its number, so its place among the ranks lasts as long as the program.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use daos_types::format_utc;
use topology::Topology;
use topology::plan::POLICY_VARIABLE;
use topology::select::{FILE_VARIABLE, Selection, Session};

use super::{PolicyName, environment, failed};
use crate::output::{Failure, one_line};
use crate::session::now_ns;

/// Exit codes of shells and `env` for a program that is not there, and one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// The program to run, and how to choose for it.
#[derive(Args, Debug)]
pub(crate) struct Job {
    /// A recorded topology instead of this machine
    #[arg(long, value_name = "FILE")]
    topology: Option<String>,
    /// Use interfaces of the rank's socket only, or share the load over all of them (default:
    /// D_IL_NIC_POLICY, else near)
    #[arg(long, value_enum)]
    policy: Option<PolicyName>,
    /// The program, looked up in PATH, and its arguments
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Job {
    /// Options go before variables of the environment.
    fn variable(&self, name: &str) -> Option<String> {
        let option = match name {
            FILE_VARIABLE => self.topology.clone(),
            POLICY_VARIABLE => self.policy.map(|policy| policy.as_str().to_owned()),
            _ => None,
        };
        option.or_else(|| environment(name))
    }
}

/// Returns only if the program cannot be run.
pub(super) fn run(job: &Job) -> Failure {
    let Some((program, arguments)) = job.program.split_first() else {
        return Failure::usage("fabric run: no program given");
    };
    // A recording the user asked for must be sound; one that is merely in the environment need not.
    if let Some(Err(error)) = job
        .topology
        .as_ref()
        .map(|file| Topology::load(file.as_ref()))
    {
        return failed(error);
    }
    let variable = |name: &str| job.variable(name);
    let session = Session::start(&variable);
    let selection = session.choose_together(&variable);
    tell(&session, &selection);
    let error = Command::new(program)
        .args(arguments)
        .envs(selection.handover.set)
        .exec();
    let exit_code = match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_RUN,
    };
    Failure {
        exit_code,
        ..Failure::plain(format!("fabric run: {}: {error}", program.display()))
    }
}

/// Warnings and, if wanted, the report on stderr; everything in the log.
fn tell(session: &Session, selection: &Selection) {
    let local = session.identity.local;
    let rank = local.map_or(String::new(), |local| {
        format!("rank {} of {}: ", local.rank, local.size)
    });
    let report = selection.report();
    let warnings = &selection.handover.warnings;
    let log = report.iter().chain(&selection.notes).chain(warnings);
    let unlogged = write_log(&rank, log).err();
    // As the other warnings, once per node.
    let unlogged = unlogged.filter(|_| local.is_none_or(|local| local.rank == 0));
    let mut said = String::new();
    for warning in warnings.iter().chain(&unlogged) {
        said += &format!("WARNING: daos: {}\n", one_line(warning));
    }
    if is_report_wanted() {
        for line in &report {
            said += &format!("daos: {rank}{}\n", one_line(line));
        }
    }
    // One write, so that lines of several ranks do not mix. Without stderr the program runs as well.
    std::io::stderr().write_all(said.as_bytes()).unwrap_or(());
}

/// As the preloaded library takes it: anything but empty, `0` and `false`.
fn is_report_wanted() -> bool {
    environment("D_IL_REPORT").is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// Appends to `D_LOG_FILE`, if set; the error says why it cannot be written.
fn write_log<'a>(rank: &str, lines: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let Some(path) = std::env::var_os("D_LOG_FILE").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let now = format_utc(now_ns().into());
    let pid = std::process::id();
    let text: String = lines
        .map(|line| format!("{now} daos[{pid}] {rank}{}\n", one_line(line)))
        .collect();
    File::options()
        .append(true)
        .create(true)
        // A FIFO nobody reads must not hang the job.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("D_LOG_FILE {}: {error}", path.display()))
}
