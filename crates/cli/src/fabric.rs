//! `daos fabric`: which network interface each rank of a job uses, and why.
//!
//! Not a command of DAOS; its output follows the other `daos` commands.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use topology::plan::{Policy, Spread};
use topology::{Topology, TopologyError, root_from};

use crate::Outcome;
use crate::output::{Failure, Tool};

mod plan;
mod run;
mod show;
mod text;

/// Commands of `daos fabric`.
#[derive(Subcommand, Debug)]
pub(crate) enum FabricCommand {
    /// Show interfaces, and which cores belong to which
    Show {
        #[command(flatten)]
        node: Node,
    },
    /// Show the interface of every rank, the load, and a recommended CPU binding
    Plan {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        job: plan::Job,
    },
    /// Choose an interface for this rank and run a program that uses it
    Run(run::Job),
    /// Write a description of this machine to a file, for --topology
    Record {
        /// The file to write
        file: PathBuf,
        /// A name for the machine instead of its host name
        #[arg(long)]
        name: Option<String>,
    },
}

/// The node to look at, and how ranks are spread over it.
#[derive(Args, Debug)]
pub(crate) struct Node {
    /// A recorded topology instead of this machine
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Use interfaces of the rank's socket only, or share the load over all of them
    #[arg(long, value_enum, default_value_t)]
    policy: PolicyName,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum PolicyName {
    #[default]
    Near,
    All,
}

impl PolicyName {
    fn as_str(self) -> &'static str {
        match self {
            PolicyName::Near => "near",
            PolicyName::All => "all",
        }
    }
}

impl Node {
    fn topology(&self) -> Result<Topology, Failure> {
        match &self.topology {
            Some(file) => Topology::load(file).map_err(failed),
            None => this_machine(),
        }
    }

    fn policy(&self) -> Policy {
        let spread = match self.policy {
            PolicyName::Near => Spread::Near,
            PolicyName::All => Spread::All,
        };
        Policy { spread, kind: None }
    }
}

/// Runs a `daos fabric` command.
pub(crate) fn run(tool: Tool, command: &FabricCommand) -> Outcome {
    let (text, response) = match command {
        FabricCommand::Show { node } => {
            show::show(&node.topology()?, node.policy(), node.topology.is_none())
        }
        FabricCommand::Plan { node, job } => plan::plan(&node.topology()?, node.policy(), job)?,
        FabricCommand::Run(job) => return Err(run::run(job)),
        FabricCommand::Record { file, name } => record(file, name.as_deref())?,
    };
    tool.reply(text, &response)
}

fn failed(error: TopologyError) -> Failure {
    Failure::plain(format!("fabric: {error}"))
}

fn environment(name: &str) -> Option<String> {
    // A value that is no text is still one the user has set.
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().into_owned())
}

fn this_machine() -> Result<Topology, Failure> {
    Topology::discover(&root_from(environment)).map_err(failed)
}

/// Text may be coloured: a terminal, and nobody asked for none (no-color.org).
fn colours() -> bool {
    std::io::stdout().is_terminal() && environment("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn record(file: &Path, name: Option<&str>) -> Result<(String, Value), Failure> {
    let mut topology = this_machine()?;
    if let Some(name) = name {
        name.clone_into(&mut topology.name);
    }
    topology.save(file).map_err(failed)?;
    let text = format!(
        "Recorded {} in {}\n",
        text::summary(&topology),
        file.display()
    );
    let response = json!({
        "file": file,
        "name": topology.name,
        "sockets": topology.sockets.len(),
        "cpus": topology.cpus().len(),
        "nics": topology.nics.len(),
    });
    Ok((text, response))
}
