//! Wrong arguments and settings: one clear line and exit code 1 from commands; host programs go on by Linux rules.

use super::Context;
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::report::Suite;
use crate::run::{Done, Step};
use std::ffi::OsString;
use std::time::Duration;

/// Commands that must be refused.
const REFUSED: &[(&str, &[&str])] = &[
    ("dmg", &["pool", "create", "big", "--size", "0"]),
    ("dmg", &["pool", "create", "big", "--size", "900TiB"]),
    ("dmg", &["pool", "create", "big", "--size", "many"]),
    ("dmg", &["pool", "create", "tank", "--size", "1GiB"]),
    ("dmg", &["pool", "query", "none"]),
    ("dmg", &["pool", "destroy", "none"]),
    (
        "daos",
        &["container", "create", "--type=POSIX", "none", "c2"],
    ),
    (
        "daos",
        &["container", "create", "--type=POSIX", "tank", "c1"],
    ),
    (
        "daos",
        &[
            "container",
            "create",
            "--type=POSIX",
            "--oclass=XX_9",
            "tank",
            "c2",
        ],
    ),
    (
        "daos",
        &[
            "container",
            "create",
            "--type=POSIX",
            "--properties=colour:blue",
            "tank",
            "c2",
        ],
    ),
    (
        "daos",
        &[
            "container",
            "create",
            "--type=POSIX",
            "--properties=rd_fac:9",
            "tank",
            "c2",
        ],
    ),
    (
        "daos",
        &[
            "container",
            "create",
            "--type=POSIX",
            "--chunk-size=abc",
            "tank",
            "c2",
        ],
    ),
    ("daos", &["container", "query", "tank", "none"]),
    ("daos", &["container", "destroy", "tank", "none"]),
    ("daos", &["fs", "ls", "tank", "none", "/"]),
    ("daos", &["fs", "ls", "tank", "c1", "/none"]),
    ("daos", &["fs", "cat", "tank", "c1", "/none"]),
    ("daos", &["fs", "rm", "tank", "c1", "/none"]),
    ("daos", &["fs", "put", "tank", "c1", "/none/here", "/x"]),
];

/// Checks commands, then programs under a preload that cannot serve its mount.
pub(crate) fn bad_input(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("bad-input");
    if context.native_only {
        return Ok(suite);
    }
    let mount = Mount::new(context.profile, None, "1GiB", THREE_COPIES)?;
    for (program, args) in REFUSED {
        let done = mount.command(program, args)?;
        suite.check(&format!("{program} {}", args.join(" ")), refused(&done));
    }
    let long = "n".repeat(300);
    let done = mount.command(
        "daos",
        &["container", "create", "--type=POSIX", "tank", &long],
    )?;
    suite.check("container label of 300 bytes", refused(&done));
    let before = mount.command("daos", &["container", "list", "tank"])?;
    // The last word of a line: a UUID may contain any label.
    let labels: Vec<&str> = before
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    suite.check(
        "nothing was created",
        if labels == ["Label", "-----", "c1"] {
            Ok(())
        } else {
            Err(format!("container list: {}", before.stdout.trim()))
        },
    );
    for (name, value) in [
        ("D_IL_POOL", "none"),
        ("D_IL_CONTAINER", "none"),
        ("D_IL_MOUNT_POINT", "relative/path"),
        ("D_IL_MOUNT_POINT", ""),
        ("D_IL_MOUNT_POINT", "/"),
        ("D_IL_REPORT", "maybe"),
        ("DAOS_EMBEDDED_ROOT", "/nonexistent/root"),
        ("DAOS_EMBEDDED_ROOT", "relative"),
    ] {
        let result = foreign_work(&mount, name, value)?;
        suite.check(&format!("a program with {name}={value:?}"), result);
    }
    full_pool(&mut suite, &mount)?;
    Ok(suite)
}

/// Exit code 1 and one line on stderr, which is not a panic. The original's commands say on stdout what they attempt.
fn refused(done: &Done) -> Result<(), String> {
    let text = &done.stderr;
    if done.code != 1 {
        return Err(format!("{}: {}", done.ending(), text.trim()));
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    if lines != 1 || text.contains("panicked") {
        return Err(format!("{lines} lines: {}", text.trim()));
    }
    Ok(())
}

/// A program that works outside the mount is not disturbed by a setting that cannot be served.
fn foreign_work(mount: &Mount, name: &str, value: &str) -> Result<Result<(), String>, Failure> {
    let mut step = Step::new("env").arg("-i").arg("PATH=/usr/bin:/bin");
    for (known, current) in &mount.place.env {
        let mut pair = OsString::from(format!("{known}="));
        pair.push(if known == name {
            OsString::from(value)
        } else {
            current.clone()
        });
        step = step.arg(pair);
    }
    if !mount.place.env.iter().any(|(known, _)| known == name) {
        step = step.arg(format!("{name}={value}"));
    }
    let script = "t=$(mktemp -d) && cd $t && echo foreign > f && cp f g && cat g && rm -r $t";
    let done = step
        .args(["sh", "-c", script])
        .timeout(Duration::from_secs(30))
        .log("bad-input")
        .run()?;
    Ok(if done.code == 0 && done.stdout == "foreign\n" {
        Ok(())
    } else {
        Err(format!("{}: {}", done.ending(), done.tail(4)))
    })
}

/// A full pool says ENOSPC; everything stays readable and can be deleted.
fn full_pool(suite: &mut Suite, mount: &Mount) -> Result<(), Failure> {
    let mut prints = |case: &str, script: &str, expected: &str| {
        let dir = mount.place.dir.display();
        let done = mount
            .place
            .step("sh")
            .args(["-c", &format!("cd {dir} && {script}")])
            .timeout(Duration::from_secs(180))
            .log("bad-input")
            .run()?;
        let outcome = if done.stdout == expected {
            Ok(())
        } else {
            let (ending, out) = (done.ending(), &done.stdout);
            Err(format!("{ending}: {out:?} {}", done.tail(3)))
        };
        suite.check(case, outcome);
        Ok::<(), Failure>(())
    };
    prints(
        "a full pool",
        "echo kept > kept && for i in $(seq 40); do dd if=/dev/zero of=fill$i bs=1M count=100 status=none || break; done; \
         LC_ALL=C dd if=/dev/zero of=more bs=1M count=100 2>&1 | grep -o 'No space left on device'; cat kept; stat -c %s fill1",
        "No space left on device\nkept\n104857600\n",
    )?;
    prints(
        "deleting from a full pool",
        "rm -f fill* more && cat kept && echo again > again && cat again && ls",
        "kept\nagain\nagain\nkept\n",
    )
}
