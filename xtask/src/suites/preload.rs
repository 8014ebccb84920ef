//! What only exists under the preload: the scripts of `tests/preload`, each with its expected output beside it.
//!
//! A script runs natively. `il PROGRAM ...` runs a program under the preload with the mount at `$MNT`; `daos` and `dmg`
//! are on PATH; `$W` is an empty directory of the mount, `$T` one of the kernel, `$PRELOAD` the library.

use super::Context;
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::report::Suite;
use crate::run::Step;
use crate::workspace::{self, TempDir};
use std::path::Path;
use std::time::Duration;

const PROLOGUE: &str = r#"
il() { LD_PRELOAD=$PRELOAD D_IL_MOUNT_POINT=$MNT D_IL_POOL=tank D_IL_CONTAINER=c1 "$@"; }
il mkdir -p "$W" || exit 98
cd "$T"
"#;

/// Runs every script.
pub(crate) fn preload(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("preload");
    if context.native_only {
        return Ok(suite);
    }
    let mount = Mount::new(context.profile, None, "4GiB", THREE_COPIES)?;
    let mut scripts: Vec<_> = std::fs::read_dir(workspace::root().join("tests/preload"))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .collect();
    scripts.retain(|path| path.extension().is_some_and(|e| e == "sh"));
    scripts.sort();
    for script in scripts {
        let name = script
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let result = run(&mount, &script, &name)?;
        match (context.gaps.reason("preload", &name), result) {
            (None, result) => suite.check(&name, result),
            (Some(_), Err(_)) => suite.known += 1,
            (Some(_), Ok(())) => {
                suite.check(
                    &name,
                    Err("passes now: remove it from c-tests/gaps.txt".to_owned()),
                );
            }
        }
    }
    Ok(suite)
}

fn run(mount: &Mount, script: &Path, name: &str) -> Result<Result<(), String>, Failure> {
    let scratch = TempDir::new(workspace::disk(), "preload")?;
    let variable = |name: &str| mount.variable(name).cloned().unwrap_or_default();
    let text = format!("{PROLOGUE}{}", std::fs::read_to_string(script)?);
    let mut path = mount.stage().as_os_str().to_os_string();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let done = Step::new("bash")
        .args(["-c", &text])
        .cwd("/")
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("MNT", mount.point())
        .env("W", mount.point().join(name))
        .env("T", scratch.path())
        .env("PRELOAD", variable("LD_PRELOAD"))
        .env("DAOS_EMBEDDED_ROOT", variable("DAOS_EMBEDDED_ROOT"))
        .timeout(Duration::from_secs(90))
        .log(&format!("preload-{name}"))
        .run()?;
    let expected = std::fs::read_to_string(script.with_extension("out"))?;
    Ok(if done.stdout == expected && !done.timed_out {
        Ok(())
    } else {
        Err(format!(
            "{}; {}; {}",
            done.ending(),
            super::programs::difference(&expected, &done.stdout),
            done.tail(4)
        ))
    })
}
