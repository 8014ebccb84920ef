//! Development tasks: `cargo xtask demo | test | bench | install | image | tidy`.
//!
//! Nothing here runs inside a host program, so plain std is used throughout. Every child process has a timeout and a
//! process group of its own; what a task creates it removes, by path or by process id.

mod bench;
mod demo;
mod gaps;
mod image;
mod install;
mod mount;
mod packages;
mod place;
mod report;
mod run;
mod suites;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Anything that stops a task, as one line for the user.
type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Development tasks",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build, then run real programs and an MPI job in a container beside the same work on the kernel's file systems
    Demo(demo::Options),
    /// Lints, unit tests and every suite; installs missing Debian packages when root
    Test(suites::Options),
    /// Measure against tmpfs and the disk's file system; writes a table, JSON and a chart to target/bench
    Bench(bench::Options),
    /// Put libraries into PREFIX/lib64 and programs into PREFIX/bin
    Install {
        /// Where to install
        #[arg(long, default_value = "/usr")]
        prefix: PathBuf,
    },
    /// Add a pool of the format of now to those that tests open, after the format has changed
    Image,
    /// Check file sizes, characters, words and the direction of dependencies
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(options) => demo::demo(&options),
        Task::Test(options) => suites::test(&options),
        Task::Bench(options) => bench::bench(&options),
        Task::Install { prefix } => install::install(&prefix),
        Task::Image => image::image(),
        Task::Tidy => tidy::tidy(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
