//! Public test programs that are crates, installed once into `target/tools` at pinned versions: one at a time, on
//! one processor, while suites run that leave another idle.

use crate::Failure;
use crate::run::Step;
use crate::workspace;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A crate with a program of its name.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

pub(crate) const PJDFSTEST: Tool = Tool {
    name: "pjdfstest",
    version: "0.2.2",
};
pub(crate) const FSX: Tool = Tool {
    name: "fsx",
    version: "0.3.2",
};

static INSTALLING: Mutex<()> = Mutex::new(());

/// Builds what is missing of these. An error is told to who asks for the program, and not before.
pub(crate) fn install(tools: &[Tool]) {
    for tool in tools {
        installed(tool).ok();
    }
}

/// The program of this crate and version, built on first use.
pub(crate) fn installed(tool: &Tool) -> Result<PathBuf, Failure> {
    let Tool { name, version } = tool;
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = workspace::target().join("tools");
    let program = root.join("bin").join(name);
    let mark = root.join(format!("{name}-{version}.installed"));
    if program.is_file() && mark.is_file() {
        return Ok(program);
    }
    println!("  building {name} {version}");
    let done = Step::new("nice")
        .args(["cargo", "install", "--locked", "--force", "--jobs", "1"])
        .arg("--root")
        .arg(&root)
        .arg(format!("{name}@{version}"))
        .cwd(workspace::target())
        .unset("CARGO_TARGET_DIR")
        .timeout(Duration::from_secs(600))
        .log("tools")
        .run()?;
    if !done.ok() {
        return Err(format!("cargo install {name}@{version}: {}", done.tail(15)).into());
    }
    std::fs::write(&mark, b"")?;
    Ok(program)
}
