//! Public test programs that are crates, installed once into `target/tools` at pinned versions.

use crate::Failure;
use crate::run::Step;
use crate::workspace;
use std::path::PathBuf;
use std::time::Duration;

/// The program of this crate and version, built on first use.
pub(crate) fn installed(name: &str, version: &str) -> Result<PathBuf, Failure> {
    let root = workspace::target().join("tools");
    let program = root.join("bin").join(name);
    let mark = root.join(format!("{name}-{version}.installed"));
    if program.is_file() && mark.is_file() {
        return Ok(program);
    }
    println!("  building {name} {version}");
    let done = Step::new("cargo")
        .args(["install", "--locked", "--force", "--root"])
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
