//! `cargo xtask test`: every suite, one table, one last line.

mod bad_input;
mod c_programs;
mod fsx;
mod mpi;
mod pjdfstest;
mod power;
mod preload;
mod programs;
mod python;
mod random;
mod tools;

pub(crate) use c_programs::compile;

use crate::Failure;
use crate::gaps::Gaps;
use crate::mount::{Mount, THREE_COPIES};
use crate::packages;
use crate::place::Place;
use crate::report::{Cases, Ending, Suite};
use crate::run::{Step, side_by_side};
use crate::tidy;
use crate::workspace::{self, Profile};
use std::thread::Scope;
use std::time::{Duration, Instant};
use tools::Tool;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also run what takes longer than a few minutes
    #[arg(long)]
    long: bool,
    /// Run only this suite (repeatable)
    #[arg(long, value_name = "NAME")]
    suite: Vec<String>,
    /// Go on with the next suite after a failure
    #[arg(long)]
    keep_going: bool,
    /// Only the native half of the suites: checks the tests themselves
    #[arg(long)]
    native: bool,
    /// Run the suites with target/debug instead of target/release
    #[arg(long)]
    debug: bool,
    /// Use the programs and libraries as they are
    #[arg(long)]
    no_build: bool,
}

/// What every suite is given.
pub(crate) struct Context {
    pub(crate) profile: Profile,
    pub(crate) long: bool,
    pub(crate) native_only: bool,
    pub(crate) gaps: Gaps,
}

impl Context {
    /// The mount of a suite, with three copies; none when only the native half is wanted.
    fn mount(&self, size: &str) -> Result<Option<Mount>, Failure> {
        if self.native_only {
            return Ok(None);
        }
        Mount::new(self.profile, None, size, THREE_COPIES).map(Some)
    }

    /// Runs cases natively and in a mount, several at a time, and judges them.
    fn compare<T: Sync>(
        &self,
        name: &str,
        cases: &[(String, T)],
        one: impl Fn(&Place, &str, &T) -> Result<Ending, Failure> + Sync,
    ) -> Result<Suite, Failure> {
        let native = Place::native("native", workspace::tmpfs(), None)?;
        let mount = self.mount("4GiB")?;
        let endings = side_by_side(cases, |(case, what)| {
            let one = |place| one(place, case, what).map_err(|error| error.to_string());
            let here = mount.as_ref().map(|mount| one(&mount.place)).transpose()?;
            Ok::<_, String>((one(&native)?, here))
        });
        let (mut reference, mut here) = (Cases::new(), Cases::new());
        for ((case, _), ending) in cases.iter().zip(endings) {
            let (natively, mounted) = ending?;
            reference.insert(case.clone(), natively);
            here.extend(mounted.map(|ending| (case.clone(), ending)));
        }
        let mut suite = Suite::new(name);
        if mount.is_some() {
            suite.judge(&self.gaps, &reference, &here);
        } else {
            suite.judge_native(&reference);
        }
        Ok(suite)
    }
}

type Runner = fn(&Context) -> Result<Suite, Failure>;

const SUITES: &[(&str, Runner)] = &[
    ("fmt", fmt),
    ("clippy", clippy),
    ("tidy", tidy_suite),
    ("unit", unit),
    ("posix", c_programs::posix),
    ("posix-user", c_programs::posix_user),
    ("random", random::random),
    ("programs", programs::programs),
    ("python", python::python),
    ("preload", preload::preload),
    ("bad-input", bad_input::bad_input),
    ("pjdfstest", pjdfstest::as_root),
    ("pjdfstest-user", pjdfstest::as_user),
    ("fsx", fsx::fsx),
    ("mpi", mpi::mpi),
    ("stress", c_programs::stress),
    ("power", power::power),
];

/// Suites that run the built library and commands.
const NEED_BUILD: &[&str] = &[
    "posix",
    "posix-user",
    "random",
    "programs",
    "python",
    "preload",
    "bad-input",
    "pjdfstest",
    "pjdfstest-user",
    "fsx",
    "mpi",
    "stress",
    "power",
];

/// Suites that need a program from elsewhere.
const NEED_TOOLS: [(&str, Tool); 2] = [("pjdfstest", tools::PJDFSTEST), ("fsx", tools::FSX)];

/// Runs the chosen suites; true when nothing failed.
pub(crate) fn test(options: &Options) -> Result<bool, Failure> {
    if let Some(bad) = options
        .suite
        .iter()
        .find(|name| !SUITES.iter().any(|(known, _)| known == name))
    {
        let known: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
        return Err(format!("no suite {bad}; there are {}", known.join(", ")).into());
    }
    let start = Instant::now();
    packages::ensure()?;
    clear_logs()?;
    let context = Context {
        profile: if options.debug {
            Profile::Debug
        } else {
            Profile::Release
        },
        long: options.long,
        native_only: options.native,
        gaps: Gaps::load()?,
    };
    let chosen: Vec<&(&str, Runner)> = SUITES
        .iter()
        .filter(|(name, _)| {
            options.suite.is_empty() || options.suite.iter().any(|wanted| wanted == name)
        })
        .collect();
    let results = std::thread::scope(|scope| run(scope, &context, chosen, options))?;
    let passed: usize = results.iter().map(|suite| suite.passed).sum();
    let failed: usize = results.iter().map(|suite| suite.failures.len()).sum();
    println!(
        "\nsuites took {:.0} s; logs in {}",
        start.elapsed().as_secs_f64(),
        workspace::logs().display()
    );
    for suite in &results {
        suite.print(0);
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Runs suites one after another; meanwhile, what they need from elsewhere is built.
fn run<'scope>(
    scope: &'scope Scope<'scope, '_>,
    context: &Context,
    chosen: Vec<&(&str, Runner)>,
    options: &Options,
) -> Result<Vec<Suite>, Failure> {
    let mut tools: Vec<Tool> = NEED_TOOLS
        .into_iter()
        .filter(|(suite, _)| chosen.iter().any(|(name, _)| name == suite))
        .map(|(_, tool)| tool)
        .collect();
    let mut built = options.no_build || options.native;
    let mut results = Vec::new();
    for (name, runner) in chosen {
        if NEED_BUILD.contains(name) {
            if !built {
                built = true;
                let seconds = context.profile.build()?;
                println!("  build {seconds:.1} s");
            }
            // What ran before takes every processor there is.
            let tools = core::mem::take(&mut tools);
            if !tools.is_empty() {
                scope.spawn(move || tools::install(&tools));
            }
        }
        let started = Instant::now();
        let mut suite =
            runner(context).unwrap_or_else(|error| Suite::broken(name, &error.to_string()));
        suite.seconds = started.elapsed().as_secs_f64();
        suite.print(40);
        let stop = !suite.ok() && !options.keep_going;
        results.push(suite);
        if stop {
            println!("stopping here; --keep-going runs the other suites too");
            break;
        }
    }
    Ok(results)
}

fn clear_logs() -> Result<(), Failure> {
    for entry in std::fs::read_dir(workspace::logs())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn cargo(name: &str, args: &[&str], minutes: u64) -> Result<Suite, Failure> {
    let done = Step::new("cargo")
        .args(args.iter().copied())
        .cwd(workspace::root())
        .timeout(Duration::from_secs(minutes * 60))
        .log(name)
        .run()?;
    Ok(Suite::of_command(name, &done))
}

fn fmt(_: &Context) -> Result<Suite, Failure> {
    cargo("fmt", &["fmt", "--all", "--check"], 2)
}

fn clippy(_: &Context) -> Result<Suite, Failure> {
    cargo(
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
        10,
    )
}

fn tidy_suite(_: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("tidy");
    let findings = tidy::findings()?;
    if findings.is_empty() {
        suite.passed = 1;
    }
    suite.failures = findings;
    Ok(suite)
}

fn unit(context: &Context) -> Result<Suite, Failure> {
    let mut step = Step::new("cargo")
        .args(["test", "--workspace", "--no-fail-fast"])
        .cwd(workspace::root())
        .env("PIL_STORM_SECONDS", if context.long { "600" } else { "60" })
        .timeout(Duration::from_secs(if context.long { 3600 } else { 900 }))
        .log("unit");
    if context.long {
        step = step
            .env("PIL4DFS_LONG_TESTS", "1")
            .env("PIL4DFS_POWER_CUTS", "100000");
    }
    let done = step.run()?;
    let mut suite = Suite::new("unit");
    for line in done.stdout.lines() {
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            suite.failures.push(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            suite.passed += counted(rest, "passed");
            suite.skipped += counted(rest, "ignored");
        }
    }
    if !done.ok() && suite.failures.is_empty() {
        suite
            .failures
            .push(format!("{}\n{}", done.ending(), done.tail(30)));
    }
    Ok(suite)
}

/// The number before ` WORD` in cargo's summary line.
fn counted(line: &str, word: &str) -> usize {
    line.split(['.', ';'])
        .filter_map(|part| part.trim().strip_suffix(word))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_of_a_summary_line() {
        let line =
            "ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(super::counted(line, "passed"), 12);
        assert_eq!(super::counted(line, "ignored"), 3);
    }
}
