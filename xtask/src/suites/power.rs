//! Power failures of real programs: the scripts of `tests/power`.
//!
//! `SCRIPT run` works in `$W` of a mount under a library that notes what reaches the rank files, and marks each step
//! that it made durable with `mark NUMBER`. For points of that tape the rank directories then get what a power failure
//! would leave, and `SCRIPT check NUMBER` looks at it through the library as it is shipped.

use super::Context;
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES, arena_name};
use crate::place::Place;
use crate::report::Suite;
use crate::run::Step;
use crate::workspace::{self, TempDir};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs every script.
pub(crate) fn power(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("power");
    if context.native_only {
        return Ok(suite);
    }
    let tools = Tools::build()?;
    let mut scripts: Vec<_> = std::fs::read_dir(workspace::root().join("tests/power"))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .collect();
    scripts.sort();
    for script in scripts {
        let name = script.file_stem().unwrap_or_default().to_string_lossy();
        suite.check(&name, tools.play(context, &script, &name)?);
    }
    Ok(suite)
}

/// What notes, and what plays the notes.
struct Tools {
    library: PathBuf,
    powercut: PathBuf,
}

impl Tools {
    fn build() -> Result<Tools, Failure> {
        // With the features of the tests, so that what those built is used.
        let done = Step::new("cargo")
            .args(["build", "--workspace", "--examples"])
            .cwd(workspace::root())
            .timeout(Duration::from_secs(900))
            .log("power")
            .run()?;
        if !done.ok() {
            return Err(format!("examples: {}", done.tail(20)).into());
        }
        let examples = workspace::target().join("debug/examples");
        Ok(Tools {
            library: examples.join("libpower_preload.so"),
            powercut: examples.join("powercut"),
        })
    }

    fn play(
        &self,
        context: &Context,
        script: &Path,
        name: &str,
    ) -> Result<Result<(), String>, Failure> {
        let mount = Mount::new(context.profile, None, "1GiB", THREE_COPIES)?;
        let scratch = TempDir::new(workspace::disk(), "power")?;
        let bin = TempDir::new(workspace::disk(), "bin")?;
        let mark = bin.path().join("mark");
        let text = format!(
            "#!/bin/sh\nLD_PRELOAD= exec '{}' mark \"$1\"\n",
            self.powercut.display()
        );
        std::fs::write(&mark, text)?;
        workspace::set_mode(&mark, 0o755)?;
        let tape = TempDir::new(workspace::tmpfs(), "tape")?;
        let tape = tape.path().join("tape");
        let variable = |name: &str| mount.variable(name).cloned().unwrap_or_default();
        let root = PathBuf::from(variable("DAOS_EMBEDDED_ROOT"));
        let pool = only_entry(&root.join("pools"))?;
        let ranks = rank_dirs(&pool)?;

        let log = format!("power-{name}");
        // What is there is brought to the devices, and the memory let go.
        let released = mount.command("dmg", &["system", "stop"])?;
        if !released.ok() {
            return Err(format!("dmg system stop: {}", released.tail(3)).into());
        }
        let made = Step::new(&self.powercut)
            .arg("make")
            .arg(&tape)
            .args(&ranks)
            .log(&log)
            .run()?;
        if !made.ok() {
            return Err(format!("powercut make: {}", made.tail(5)).into());
        }
        let path = format!("{}:{}", bin.path().display(), DEFAULT_PATH);
        let mut env = mount.place.env.clone();
        env.retain(|(name, _)| name != "LD_PRELOAD");
        for (name, value) in [
            ("PATH", path.into()),
            ("W", mount.place.dir.clone().into_os_string()),
            ("LD_PRELOAD", self.library.clone().into_os_string()),
            ("PIL4DFS_TAPE", tape.clone().into_os_string()),
        ] {
            env.push((name.to_owned(), value));
        }
        let place = Place::mounted("power", mount.place.dir.clone(), env, None);
        let run = place.step("bash").arg(script).arg("run");
        let run = run.timeout(Duration::from_secs(120)).log(&log);
        let done = run.run()?;
        if !done.ok() {
            return Ok(Err(format!("run: {}; {}", done.ending(), done.tail(5))));
        }

        let arena = workspace::tmpfs().join(arena_name(&pool));
        let check = scratch.path().join("check.sh");
        std::fs::write(
            &check,
            format!(
                "rm -f '{arena}'\nexport LD_PRELOAD='{library}' W='{work}'\nexec bash '{script}' check \"$1\"\n",
                arena = arena.display(),
                library = PathBuf::from(variable("LD_PRELOAD")).display(),
                work = mount.place.dir.display(),
                script = script.display()
            ),
        )?;
        let count = if context.long { "5000" } else { "60" };
        let mut cuts = Step::new(&self.powercut).arg("cuts").arg(&tape);
        for (name, value) in &mount.place.env {
            if name != "LD_PRELOAD" {
                cuts = cuts.env(name, value);
            }
        }
        let done = cuts
            .args([count, "1", "--", "sh"])
            .arg(&check)
            .timeout(Duration::from_secs(if context.long { 3600 } else { 300 }))
            .log(&log)
            .run()?;
        Ok(if done.ok() {
            Ok(())
        } else {
            Err(format!("{}; {}", done.ending(), done.tail(8)))
        })
    }
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn only_entry(dir: &Path) -> Result<PathBuf, Failure> {
    let mut entries = std::fs::read_dir(dir)?;
    let entry = entries
        .next()
        .ok_or_else(|| format!("{} is empty", dir.display()))?;
    Ok(entry?.path())
}

fn rank_dirs(pool: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut ranks: Vec<PathBuf> = std::fs::read_dir(pool)?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|path| path.is_dir())
        .collect();
    ranks.sort();
    Ok(ranks)
}
