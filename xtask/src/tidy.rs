//! `cargo xtask tidy`: what a reader may rely on in every file, and the direction of dependencies.

use crate::Failure;
use crate::run::Step;
use crate::workspace;
use std::path::Path;

/// The longest file, in lines.
const LINES_MAX: usize = 800;

/// Endings of the files that are read; the rest of the tree is data.
const ENDINGS: &[&str] = &["rs", "c", "h", "sh", "toml", "md", "py"];

/// What lies at the top: what a program leaves behind there is not part of the project.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "c-tests",
    "crates",
    "docs",
    "fuzz",
    "rustfmt.toml",
    "src",
    "tests",
    "xtask",
];

/// Names that say nothing about what a module owns.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "misc", "helper", "helpers", "manager", "wrapper", "common2",
];

/// Text that must not appear; written in two halves so that this file does not contain it.
const BANNED: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("FIX", "ME", "unfinished work"),
    ("XX", "X:", "unfinished work"),
    ("TO", "DO", "unfinished work"),
    ("todo", "!(", "unfinished work"),
    ("unimplemented", "!(", "unfinished work"),
];

/// The four rows and who lies in which; a crate may use lower rows only.
const ROWS: &[(&str, &[&str])] = &[
    ("words", &["sys", "daos-types", "codec"]),
    ("mechanisms", &["shm", "intercept", "topology"]),
    ("store", &["engine", "dfs", "client"]),
    (
        "faces",
        &["pil4dfs", "symbols", "ioil", "capi", "dfuse", "cli"],
    ),
    ("beside", &["xtask"]),
];

/// Prints the findings; true when there are none.
pub(crate) fn tidy() -> Result<bool, Failure> {
    let findings = findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    Ok(findings.is_empty())
}

/// One line for each finding.
pub(crate) fn findings() -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    let listed = Step::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .cwd(workspace::root())
        .log("tidy")
        .run()?;
    for name in listed.stdout.lines() {
        let path = Path::new(name);
        // A deleted file is still listed until it is committed.
        if !belongs_at_top(path) && workspace::root().join(path).exists() {
            findings.push(format!("{name}: does not belong at the top of the tree"));
        }
        let is_read = path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| ENDINGS.contains(&e));
        if is_read && let Ok(text) = std::fs::read_to_string(workspace::root().join(path)) {
            check_text(name, &text, &mut findings);
        }
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        if EMPTY_NAMES.contains(&stem) {
            findings.push(format!("{name}: the name does not say what the file owns"));
        }
    }
    rows(&mut findings)?;
    Ok(findings)
}

fn belongs_at_top(path: &Path) -> bool {
    let first = path.iter().next().and_then(|name| name.to_str());
    first.is_some_and(|name| TOP.contains(&name))
}

fn check_text(name: &str, text: &str, findings: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!("{name}: {lines} lines, at most {LINES_MAX}"));
    }
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{name}:{}", number + 1);
        if !line.is_ascii() {
            findings.push(format!("{}: a character outside ASCII", place()));
        }
        for (first, second, why) in BANNED {
            let word = format!("{first}{second}");
            if line.contains(&word) && !is_host_name(line, &word) {
                findings.push(format!("{}: {word} ({why})", place()));
            }
        }
    }
    if name.ends_with(".rs")
        && !name.ends_with("tests.rs")
        && !text.trim_start().starts_with("//!")
        && !text.starts_with("#!")
    {
        findings.push(format!(
            "{name}: no //! comment that says what the file owns"
        ));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(format!("{name}: no newline at the end"));
    }
}

/// Behind `$PWD`, `{dir}` or a name it is a part of something relative, and no path of a machine.
fn is_host_name(line: &str, word: &str) -> bool {
    line.match_indices(word).all(|(at, _)| {
        line[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || "}.-_>)".contains(c))
    })
}

fn rows(findings: &mut Vec<String>) -> Result<(), Failure> {
    let done = Step::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .cwd(workspace::root())
        .log("tidy")
        .run()?;
    let metadata: serde_json::Value = serde_json::from_str(&done.stdout)?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let root = workspace::root();
    let folder = |manifest_dir: &Path| {
        if manifest_dir == root {
            "pil4dfs".to_owned()
        } else {
            manifest_dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        }
    };
    for package in &packages {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let user = folder(manifest.parent().unwrap_or(&root));
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let (Some(path), kind) = (dependency["path"].as_str(), dependency["kind"].as_str())
            else {
                continue;
            };
            let used = folder(Path::new(path));
            if kind != Some("dev") && !may_use(&user, &used) {
                findings.push(format!(
                    "{user} may not use {used}: dependencies point down the four rows"
                ));
            }
        }
    }
    Ok(())
}

/// Row and place in the row.
fn position(name: &str) -> Option<(usize, usize)> {
    ROWS.iter().enumerate().find_map(|(row, (_, crates))| {
        crates
            .iter()
            .position(|known| *known == name)
            .map(|at| (row, at))
    })
}

fn may_use(user: &str, used: &str) -> bool {
    let (Some((row, at)), Some((used_row, used_at))) = (position(user), position(used)) else {
        return false;
    };
    let (name, _) = ROWS[row];
    used_row < row || (used_row == row && name == "store" && used_at < at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_point_down() {
        assert!(may_use("client", "dfs"));
        assert!(may_use("dfs", "engine"));
        assert!(may_use("pil4dfs", "intercept"));
        assert!(!may_use("engine", "dfs"));
        assert!(!may_use("shm", "intercept"));
        assert!(!may_use("sys", "shm"));
        assert!(!may_use("unknown", "sys"));
    }

    #[test]
    fn relative_paths_are_allowed() {
        let (first, second, _) = BANNED[0];
        let word = format!("{first}{second}");
        assert!(is_host_name(&format!("$PWD{word}x"), &word));
        assert!(!is_host_name(&format!("cd {word}x"), &word));
    }

    #[test]
    fn litter_at_the_top_is_found() {
        assert!(belongs_at_top(Path::new("src/lib.rs")));
        assert!(belongs_at_top(Path::new("README.md")));
        assert!(!belongs_at_top(Path::new("job-0-verify.state")));
    }

    #[test]
    fn long_files_are_found() {
        let mut findings = Vec::new();
        check_text("a.c", &"x\n".repeat(801), &mut findings);
        assert_eq!(findings.len(), 1);
    }
}
