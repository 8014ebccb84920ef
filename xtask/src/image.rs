//! `cargo xtask image`: adds a pool of the format of now to those that tests open, `crates/dfs/tests/images`.

use crate::Failure;
use crate::run::Step;
use crate::workspace;
use std::time::Duration;

/// Makes the image; true when that went well.
pub(crate) fn image() -> Result<bool, Failure> {
    let dir = workspace::root().join("crates/dfs/tests/images");
    let done = Step::new("cargo")
        .args([
            "test",
            "--package",
            "pil4dfs-dfs",
            "--test",
            "images",
            "make",
        ])
        .cwd(workspace::root())
        .env("PIL4DFS_IMAGE_TO", &dir)
        .timeout(Duration::from_secs(600))
        .log("image")
        .run()?;
    println!("{}: {}", dir.display(), done.ending());
    Ok(done.ok())
}
