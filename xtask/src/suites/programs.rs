//! Real programs: every script of `tests/programs`, on tmpfs and in the mount; output, exit code and the tree left
//! behind must be equal.
//!
//! A script starts in an empty directory. Its first lines may hold directives: `# tree: full` (default: names, types,
//! modes, sizes, link targets and contents of everything), `# tree: names` or `# tree: none`; `# seconds: N`.

use super::Context;
use crate::Failure;
use crate::place::Place;
use crate::report::{Cases, Ending, Suite};
use crate::workspace;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Script {
    name: String,
    path: PathBuf,
    tree: &'static str,
    limit: Duration,
}

struct Ran {
    code: i32,
    stdout: String,
    tree: String,
    problem: Option<String>,
}

/// Runs the table.
pub(crate) fn programs(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("programs");
    let native = Place::native("native", workspace::tmpfs(), None)?;
    let mount = context.mount("8GiB")?;
    let stage = workspace::TempDir::new(workspace::disk(), "scripts")?;
    let (mut reference, mut here) = (Cases::new(), Cases::new());
    for script in scripts(stage.path())? {
        let expected = run(&native, &script)?;
        let good = expected.problem.is_none() && expected.code == 0;
        let ending = if good {
            Ending::Passed
        } else {
            let why = expected
                .problem
                .clone()
                .unwrap_or(format!("exit code {}", expected.code));
            Ending::Failed(why)
        };
        reference.insert(script.name.clone(), ending);
        if let Some(mount) = &mount {
            let got = run(&mount.place, &script)?;
            here.insert(script.name.clone(), compare(&expected, &got));
        }
    }
    if mount.is_some() {
        suite.judge(&context.gaps, &reference, &here);
    } else {
        suite.judge_native(&reference);
    }
    Ok(suite)
}

fn scripts(stage: &Path) -> Result<Vec<Script>, Failure> {
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(workspace::root().join("tests/programs"))? {
        let source = entry?.path();
        if source.extension().is_none_or(|e| e != "sh") {
            continue;
        }
        let text = std::fs::read_to_string(&source)?;
        let path = stage.join(source.file_name().unwrap_or_default());
        std::fs::write(&path, &text)?;
        let directive = |key: &str| {
            text.lines()
                .take_while(|line| line.starts_with('#'))
                .find_map(|line| {
                    line.strip_prefix("# ")?
                        .strip_prefix(key)?
                        .strip_prefix(": ")
                })
        };
        let tree = match directive("tree") {
            Some("none") => "none",
            Some("names") => "names",
            _ => "full",
        };
        let seconds = directive("seconds")
            .and_then(|s| s.trim().parse().ok())
            .unwrap_or(90);
        let name = source
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        scripts.push(Script {
            name,
            path,
            tree,
            limit: Duration::from_secs(seconds),
        });
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

fn run(place: &Place, script: &Script) -> Result<Ran, Failure> {
    let log = format!("programs-{}-{}", place.label, script.name);
    let dir = place.dir.join(&script.name);
    let done = place
        .step("bash")
        .args([
            "-c",
            "mkdir -p \"$1\" && cd \"$1\" && exec bash \"$2\"",
            "bash",
        ])
        .arg(&dir)
        .arg(&script.path)
        .timeout(script.limit)
        .log(&log)
        .run()?;
    let mut ran = Ran {
        code: done.code,
        stdout: done.stdout.replace(&*dir.to_string_lossy(), "@DIR@"),
        tree: String::new(),
        problem: done.timed_out.then(|| done.ending()),
    };
    if let Some(signal) = (!done.ok() && done.stderr.contains("core dumped")).then(|| done.tail(3))
    {
        ran.problem.get_or_insert(signal);
    }
    if script.tree != "none" {
        let listing = if script.tree == "full" {
            TREE_FULL
        } else {
            TREE_NAMES
        };
        let done = place
            .step("bash")
            .args(["-c", listing, "bash"])
            .arg(&dir)
            .timeout(Duration::from_secs(60))
            .log(&log)
            .run()?;
        if !done.ok() && ran.problem.is_none() {
            ran.problem = Some(format!(
                "listing the tree: {}: {}",
                done.ending(),
                done.tail(3)
            ));
        }
        ran.tree = done.stdout;
    }
    place
        .step("rm")
        .arg("-rf")
        .arg(&dir)
        .timeout(Duration::from_secs(60))
        .log(&log)
        .run()?;
    Ok(ran)
}

const TREE_NAMES: &str = "cd \"$1\" && find . -printf '%P %y %m\\n' | sort";
const TREE_FULL: &str = "set -o pipefail; cd \"$1\" && \
    find . \\( -type f -printf '%P %y %m %n %s\\n' \\) -o -printf '%P %y %m %l\\n' | sort && \
    find . -type f -print0 | sort -z | xargs -0r sha256sum";

fn compare(expected: &Ran, got: &Ran) -> Ending {
    if let Some(problem) = &got.problem {
        return Ending::Failed(problem.clone());
    }
    if got.code != expected.code {
        return Ending::Failed(format!(
            "exit code {}, natively {}; {}",
            got.code,
            expected.code,
            difference(&expected.stdout, &got.stdout)
        ));
    }
    if got.stdout != expected.stdout {
        return Ending::Failed(format!(
            "output: {}",
            difference(&expected.stdout, &got.stdout)
        ));
    }
    if got.tree != expected.tree {
        return Ending::Failed(format!("tree: {}", difference(&expected.tree, &got.tree)));
    }
    Ending::Passed
}

/// The first line that differs.
pub(super) fn difference(expected: &str, got: &str) -> String {
    let (mut left, mut right) = (expected.lines(), got.lines());
    for number in 1.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                return format!(
                    "line {number}: {:?}, natively {:?}",
                    b.unwrap_or("(end)"),
                    a.unwrap_or("(end)")
                );
            }
        }
    }
    "same lines".to_owned()
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn difference_names_the_line() {
        assert_eq!(
            difference("a\nb\n", "a\nc\n"),
            "line 2: \"c\", natively \"b\""
        );
        assert_eq!(
            difference("a\nb\n", "a\n"),
            "line 2: \"(end)\", natively \"b\""
        );
        assert_eq!(difference("a\n", "a\n"), "same lines");
    }
}
