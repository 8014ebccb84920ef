//! pjdfstest 0.2.2: 398 tests of POSIX calls; whatever passes on tmpfs must pass in the mount.

use super::{Context, tools};
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::place::Place;
use crate::report::{Cases, Ending, Suite};
use crate::workspace::{self, NOBODY, TempDir, is_root};
use std::path::Path;
use std::time::Duration;

const CONFIGURATION: &str = r#"[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// All tests, as root when this process is.
pub(crate) fn as_root(context: &Context) -> Result<Suite, Failure> {
    run(context, "pjdfstest", None)
}

/// The tests a plain user can run.
pub(crate) fn as_user(context: &Context) -> Result<Suite, Failure> {
    if !is_root() {
        return Ok(Suite::new("pjdfstest-user"));
    }
    run(context, "pjdfstest-user", Some(NOBODY))
}

fn run(context: &Context, name: &str, user: Option<u32>) -> Result<Suite, Failure> {
    let mut suite = Suite::new(name);
    let stage = TempDir::new(workspace::disk(), "pjdfstest")?;
    let program = stage.path().join("pjdfstest");
    std::fs::copy(tools::installed(&tools::PJDFSTEST)?, &program)?;
    let configuration = stage.path().join("pjdfstest.toml");
    std::fs::write(&configuration, CONFIGURATION)?;
    let second = Place::native("second", workspace::disk(), user)?;
    let native = Place::native("native", workspace::tmpfs(), user)?;
    let reference = cases(&native, &program, &configuration, &second.dir, name)?;
    if context.native_only {
        suite.judge_native(&reference);
        return Ok(suite);
    }
    let mount = Mount::new(context.profile, user, "4GiB", THREE_COPIES)?;
    let here = cases(&mount.place, &program, &configuration, &second.dir, name)?;
    suite.judge(&context.gaps, &reference, &here);
    Ok(suite)
}

fn cases(
    place: &Place,
    program: &Path,
    configuration: &Path,
    second: &Path,
    log: &str,
) -> Result<Cases, Failure> {
    let dir = place.make_dir("pjdfstest", log)?;
    let done = place
        .step(program)
        .arg("-c")
        .arg(configuration)
        .arg("-p")
        .arg(&dir)
        .arg("-s")
        .arg(second)
        .timeout(Duration::from_secs(240))
        .log(&format!("{log}-{}", place.label))
        .run()?;
    let cases = parse(&done.stdout);
    if cases.len() < 390 {
        let last = done.stdout.lines().next_back().unwrap_or_default();
        println!(
            "      {log} on {}: only {} results, {}: {last}",
            place.label,
            cases.len(),
            done.ending()
        );
    }
    if cases.is_empty() {
        return Err(format!(
            "{log} on {}: {}: {}",
            place.label,
            done.ending(),
            done.tail(5)
        )
        .into());
    }
    Ok(cases)
}

/// Reads lines `NAME   ok|FAILED|skipped`; an indented line explains the test above it.
fn parse(output: &str) -> Cases {
    let mut cases = Cases::new();
    let mut last = String::new();
    for line in output.lines() {
        if line.starts_with(char::is_whitespace) {
            match cases.get_mut(&last) {
                Some(Ending::Failed(why) | Ending::Skipped(why)) if why.len() < 300 => {
                    why.push_str(line.trim());
                    why.push(' ');
                }
                _ => {}
            }
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(ending)) = (words.next(), words.next_back()) else {
            continue;
        };
        let ending = match ending {
            "ok" => Ending::Passed,
            "skipped" => Ending::Skipped(String::new()),
            "FAILED" => Ending::Failed(String::new()),
            _ => continue,
        };
        if name.contains("::") {
            last = name.to_owned();
            cases.insert(last.clone(), ending);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_belong_to_the_test_above() {
        let cases = parse(
            "chmod::a    ok\nlink::b   skipped\n\tneeds x\nopen::c  FAILED\n\tassertion `left`\n",
        );
        assert_eq!(cases["chmod::a"], Ending::Passed);
        assert_eq!(cases["link::b"], Ending::Skipped("needs x ".to_owned()));
        assert_eq!(
            cases["open::c"],
            Ending::Failed("assertion `left` ".to_owned())
        );
    }
}
