//! The C programs of `c-tests` and `c-tests/stress`: one expectation, run on tmpfs and in the mount.

use super::Context;
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::place::{Place, artefacts};
use crate::report::{Cases, Ending, Suite, parse_cases};
use crate::run::Step;
use crate::workspace::{self, NOBODY, TempDir, is_root};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// The POSIX programs as this user.
pub(crate) fn posix(context: &Context) -> Result<Suite, Failure> {
    run(context, "posix", "c-tests", None, 120)
}

/// The POSIX programs as a plain user.
pub(crate) fn posix_user(context: &Context) -> Result<Suite, Failure> {
    if !is_root() {
        return Ok(Suite::new("posix-user"));
    }
    run(context, "posix-user", "c-tests", Some(NOBODY), 120)
}

/// The programs that load a mount from many threads and processes.
pub(crate) fn stress(context: &Context) -> Result<Suite, Failure> {
    run(
        context,
        "stress",
        "c-tests/stress",
        None,
        // They put a load on the mount for 100 s, and check what is there then.
        if context.long { 1200 } else { 300 },
    )
}

fn run(
    context: &Context,
    name: &str,
    dir: &str,
    user: Option<u32>,
    limit_s: u64,
) -> Result<Suite, Failure> {
    let programs = compile(&workspace::root().join(dir), "gcc", &[])?;
    let stage = TempDir::new(workspace::disk(), "programs")?;
    let mut staged = Vec::new();
    for program in &programs {
        let to = stage.path().join(program.file_name().unwrap_or_default());
        std::fs::copy(program, &to)?;
        staged.push(to);
    }
    let mut suite = Suite::new(name);
    let native = Place::native("native", workspace::tmpfs(), user)?;
    let reference = cases(context, &native, &staged, name, limit_s)?;
    if context.native_only {
        suite.judge_native(&reference);
        return Ok(suite);
    }
    let mount = Mount::new(context.profile, user, "4GiB", THREE_COPIES)?;
    let here = cases(context, &mount.place, &staged, name, limit_s)?;
    suite.judge(&context.gaps, &reference, &here);
    Ok(suite)
}

/// Compiles every C file of a directory and gives the programs.
pub(crate) fn compile(dir: &Path, compiler: &str, flags: &[&str]) -> Result<Vec<PathBuf>, Failure> {
    let mut sources: Vec<PathBuf> = std::fs::read_dir(dir)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .collect();
    sources.retain(|path| path.extension().is_some_and(|e| e == "c"));
    sources.sort();
    let out = artefacts()?
        .join(compiler)
        .join(dir.file_name().unwrap_or_default());
    std::fs::create_dir_all(&out)?;
    let mut programs = Vec::new();
    for source in sources {
        let program = out.join(source.file_stem().unwrap_or_default());
        let done = Step::new(compiler)
            .args([
                "-O1",
                "-g",
                "-Wall",
                "-Wextra",
                "-Wno-unused-result",
                "-Wno-format-truncation",
            ])
            .args(["-Wno-nonnull", "-Wno-clobbered", "-I"])
            .arg(workspace::root().join("c-tests"))
            .args(flags.iter().copied())
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .args(["-lpthread", "-ldl", "-lm"])
            .log("compile")
            .run()?;
        if !done.ok() {
            return Err(format!("{} {}: {}", compiler, source.display(), done.tail(20)).into());
        }
        programs.push(program);
    }
    Ok(programs)
}

fn cases(
    context: &Context,
    place: &Place,
    programs: &[PathBuf],
    log: &str,
    limit_s: u64,
) -> Result<Cases, Failure> {
    place.make_dir("", log)?;
    let next = Mutex::new(programs.iter());
    let all = Mutex::new(Cases::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let program = next.lock().ok().and_then(|mut programs| programs.next());
                    let Some(program) = program else { break };
                    let found = one(context, place, program, log, limit_s);
                    if let Ok(mut all) = all.lock() {
                        all.extend(found);
                    }
                }
            });
        }
    });
    all.into_inner().map_err(|_| "a worker died".into())
}

/// Seconds for which a stress program puts a load on a place. On a kernel file system it only has to
/// show that what it expects is so.
fn stress_seconds(context: &Context, place: &Place) -> u32 {
    match (place.env.is_empty(), context.long) {
        (true, _) => 2,
        (false, false) => 10,
        (false, true) => 30,
    }
}

fn one(context: &Context, place: &Place, program: &Path, log: &str, limit_s: u64) -> Cases {
    let topic = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let step = place
        .step("env")
        .arg(format!("STRESS_SECONDS={}", stress_seconds(context, place)))
        .arg(program)
        .arg(&place.dir)
        .timeout(Duration::from_secs(limit_s))
        .log(&format!("{log}-{}-{topic}", place.label));
    let mut cases = Cases::new();
    match step.run() {
        Ok(done) => {
            cases = parse_cases(&done.stdout);
            let told = cases
                .values()
                .any(|ending| matches!(ending, Ending::Failed(_)));
            let good = done.ok() || (told && done.code == 1);
            cases.insert(format!("{topic}/ends"), Ending::of(&done, good, 3));
        }
        Err(error) => {
            cases.insert(format!("{topic}/ends"), Ending::Failed(error.to_string()));
        }
    }
    cases
}
