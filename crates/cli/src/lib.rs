//! The `daos` and `dmg` commands: arguments and texts as DAOS 2.6 has them, over the embedded
//! engine.
//!
//! ```text
//!   bin/daos.rs bin/dmg.rs -> lib.rs: parse, run, print
//!   pool container fs        what the daos commands mean      transfer   trees in and out
//!   fabric                   network interfaces and ranks (ours, not in DAOS)
//!   dmg                      creating and destroying pools
//!   names usage session      arguments, their errors, the pool or container they name
//!   output table progress    text, JSON, error lines, progress bars
//! ```

#![deny(unsafe_code)]

mod attributes;
mod container;
mod container_check;
mod container_create;
mod container_view;
mod copy;
mod dmg;
mod fabric;
mod fs;
mod fs_check;
mod names;
mod output;
mod pool;
mod progress;
mod session;
mod table;
mod transfer;
mod usage;
mod usage_figures;
mod view;

use crate::output::{Failure, Reply, Tool, say};
use crate::usage::Parsed;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// daos is a tool that can be used to manage/query pool content and create/query/manage/destroy
/// a container inside a pool
#[derive(Parser, Debug)]
#[command(name = "daos", disable_help_subcommand = true, infer_long_args = true)]
struct Daos {
    /// Enable debug output
    #[arg(long, global = true)]
    debug: bool,
    /// Enable verbose output (when applicable)
    #[arg(long, global = true)]
    verbose: bool,
    /// Enable JSON output
    #[arg(short = 'j', long, global = true)]
    json: bool,
    /// DAOS system name (optional)
    #[arg(short = 'G', long, global = true, value_name = "NAME")]
    sys_name: Option<String>,
    #[command(subcommand)]
    command: DaosCommand,
}

#[derive(Subcommand, Debug)]
enum DaosCommand {
    /// Perform tasks related to DAOS pools
    Pool {
        #[command(subcommand)]
        command: pool::PoolCommand,
    },
    /// Perform tasks related to DAOS containers
    #[command(visible_alias = "cont")]
    Container {
        #[command(subcommand)]
        command: Box<container::ContainerCommand>,
    },
    /// POSIX filesystem operations
    #[command(visible_alias = "fs")]
    Filesystem {
        #[command(subcommand)]
        command: fs::FsCommand,
    },
    /// Network interfaces of a node, and which of them each rank of a job uses
    Fabric {
        #[command(subcommand)]
        command: fabric::FabricCommand,
    },
    /// Print daos version
    Version,
}

/// Parses and runs; prints the outcome.
fn main_of<C>(name: &'static str, args: &[OsString], run: fn(C) -> (Tool, Outcome)) -> ExitCode
where
    C: CommandFactory + FromArgMatches,
{
    sys::file_limit::learn();
    let tool = Tool { name, json: false };
    // A rank's file that somebody cuts is an error, not the end of the command.
    if let Err(error) = sys::uaccess::install() {
        return tool.finish(Err(Failure::errno("cannot handle signals", error)));
    }
    let parsed = match usage::parse(C::command(), args) {
        Ok(Parsed::Matches(matches)) => C::from_arg_matches(&matches),
        Ok(Parsed::Help(text)) => {
            return if say(&text) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        Err(failure) => return tool.finish(Err(failure)),
    };
    match parsed {
        Ok(command) => {
            let (tool, outcome) = run(command);
            tool.finish(outcome)
        }
        Err(error) => tool.finish(Err(Failure::usage(error.to_string()))),
    }
}

type Outcome = Result<Reply, Failure>;

fn run_daos(command: Daos) -> (Tool, Outcome) {
    let tool = Tool {
        name: "daos",
        json: command.json,
    };
    let outcome = match command.command {
        DaosCommand::Pool { command } => pool::run(tool, command),
        DaosCommand::Container { command } => container::run(tool, *command),
        DaosCommand::Filesystem { command } => fs::run(tool, command),
        DaosCommand::Fabric { command } => fabric::run(tool, &command),
        DaosCommand::Version => version(tool),
    };
    (tool, outcome)
}

fn version(tool: Tool) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    // The line of DAOS, so that scripts that parse it find a version in its place.
    tool.reply(
        format!("DAOS CLI version {version}, embedded engine v{version}\n"),
        &[("version", version)]
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>(),
    )
}

fn run_dmg(command: dmg::Dmg) -> (Tool, Outcome) {
    let tool = Tool {
        name: "dmg",
        json: command.json,
    };
    (tool, dmg::run(tool, command))
}

/// Runs the `daos` command with the arguments of the process, its own name first.
pub fn daos_main(args: Vec<OsString>) -> ExitCode {
    main_of::<Daos>("daos", &args, run_daos)
}

/// Runs the `dmg` command with the arguments of the process, its own name first.
pub fn dmg_main(args: Vec<OsString>) -> ExitCode {
    main_of::<dmg::Dmg>("dmg", &args, run_dmg)
}
