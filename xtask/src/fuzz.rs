//! `cargo xtask fuzz`: builds the targets in `fuzz/` with the flags that cargo-fuzz would give, which
//! stable compilers take too, and runs one.

use crate::Failure;
use crate::workspace;
use std::process::{Command, Stdio};

/// Instrumentation that libFuzzer reads.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Ccodegen-units=1";
/// An input that takes longer is an endless loop.
const TIMEOUT_S: u32 = 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to fuzz
    #[arg(value_parser = ["log", "checkpoint", "index", "pool_map", "attach_file"])]
    target: String,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Builds and runs; false if an input was found that breaks the target.
pub(crate) fn fuzz(options: &Options) -> Result<bool, Failure> {
    let dir = workspace::root().join("fuzz");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target_dir = workspace::root().join("target/fuzz");
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--target",
            &triple,
            "--bin",
            &options.target,
        ])
        .arg("--manifest-path")
        .arg(dir.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTFLAGS", FLAGS)
        .status()?;
    if !built.success() {
        return Err("the target does not build".into());
    }
    let corpus = target_dir.join("corpus").join(&options.target);
    std::fs::create_dir_all(&corpus)?;
    let found = target_dir.join("found").join(&options.target);
    std::fs::create_dir_all(&found)?;
    let program = target_dir
        .join(&triple)
        .join("release")
        .join(&options.target);
    // Targets leave inputs to start from.
    let seeded = Command::new(&program)
        .arg("-runs=0")
        .env("FUZZ_SEEDS", &corpus)
        .stderr(Stdio::null())
        .status()?;
    if !seeded.success() {
        return Err("the target does not start".into());
    }
    let ended = Command::new(&program)
        .arg(format!("-max_total_time={}", options.seconds))
        .arg(format!("-timeout={TIMEOUT_S}"))
        .args([
            "-rss_limit_mb=4096",
            "-max_len=8192",
            "-print_final_stats=1",
        ])
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(&corpus)
        .status()?;
    Ok(ended.success())
}
