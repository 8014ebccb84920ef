//! `daos fabric`: which network interface each rank of a job uses, and why.
//!
//! Not a command of DAOS. Output follows the `daos` tool: plain text without prefix, or with `--json`
//! one object with `response`, `error` and `status`. Errors are returned for the caller to print.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use topology::plan::{Policy, Spread};
use topology::{Topology, root_from};

mod plan;
mod show;
mod text;

/// Arguments of `daos fabric`.
#[derive(Args, Debug)]
pub struct FabricArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
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
struct Node {
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

impl Node {
    fn topology(&self) -> Result<Topology, String> {
        match &self.topology {
            Some(file) => Topology::load(file).map_err(|error| error.to_string()),
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

/// What a command has to say, in both forms.
struct Answer {
    text: String,
    response: Value,
}

/// Runs a `daos fabric` command and prints its answer.
///
/// # Errors
/// One line that says what is wrong, without the `ERROR: daos: ` in front.
pub fn run(args: &FabricArgs, json: bool) -> Result<(), String> {
    let answer = match &args.command {
        Command::Show { node } => show::show(&node.topology()?, node.policy(), node.is_here()),
        Command::Plan { node, job } => plan::plan(&node.topology()?, node.policy(), job)?,
        Command::Record { file, name } => record(file, name.as_deref())?,
    };
    let text = match json {
        true => {
            let object = json!({"response": answer.response, "error": null, "status": 0});
            format!("{object:#}\n")
        }
        false => answer.text,
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| error.to_string())
}

impl Node {
    fn is_here(&self) -> bool {
        self.topology.is_none()
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn this_machine() -> Result<Topology, String> {
    Topology::discover(&root_from(environment)).map_err(|error| error.to_string())
}

/// Text may be coloured: a terminal, and nobody asked for none (no-color.org).
fn colours() -> bool {
    std::io::stdout().is_terminal() && environment("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn record(file: &Path, name: Option<&str>) -> Result<Answer, String> {
    let mut topology = this_machine()?;
    if let Some(name) = name {
        name.clone_into(&mut topology.name);
    }
    topology.save(file).map_err(|error| error.to_string())?;
    Ok(Answer {
        text: format!(
            "Recorded {} in {}\n",
            text::summary(&topology),
            file.display()
        ),
        response: json!({
            "file": file,
            "name": topology.name,
            "sockets": topology.sockets.len(),
            "cpus": topology.cpus().len(),
            "nics": topology.nics.len(),
        }),
    })
}
