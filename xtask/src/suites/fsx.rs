//! fsx 0.3.2: random reads, writes, maps, truncates, allocations and copies of one file, verified at every read.

use super::{Context, tools};
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::place::Place;
use crate::report::Suite;
use crate::workspace::{self, TempDir};
use std::path::Path;
use std::time::Duration;

const CONFIGURATION: &str = "flen = FLEN
nomsyncafterwrite = NOMSYNC

[opsize]
max = 65536

[weights]
close_open = 50
read = 500
write = 500
mapread = MAPS
mapwrite = MAPS
invalidate = 2
truncate = 150
fsync = 2
fdatasync = 2
posix_fallocate = 150
punch_hole = 150
sendfile = 150
posix_fadvise = 50
copy_file_range = 150
";

/// Name, weight of mapped reads and writes, length of the file, whether mapped writes are left unsynchronised.
const KINDS: &[(&str, u32, u32, bool)] = &[
    ("plain", 0, 262_144, true),
    ("maps", 500, 262_144, true),
    ("synced-maps", 20, 262_144, false),
    ("large", 100, 8 << 20, true),
];

/// Seeds, each without and with maps, on a small and a larger file.
pub(crate) fn fsx(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("fsx");
    let stage = TempDir::new(workspace::disk(), "fsx")?;
    let program = stage.path().join("fsx");
    std::fs::copy(tools::installed("fsx", "0.3.2")?, &program)?;
    let native = Place::native("native", workspace::tmpfs(), None)?;
    let mount = if context.native_only {
        None
    } else {
        Some(Mount::new(context.profile, None, "4GiB", THREE_COPIES)?)
    };
    let seeds: u32 = if context.long { 40 } else { 5 };
    for (kind, maps, flen, unsynchronised) in KINDS {
        let configuration = stage.path().join(format!("{kind}.toml"));
        let text = CONFIGURATION
            .replace("FLEN", &flen.to_string())
            .replace("MAPS", &maps.to_string())
            .replace("NOMSYNC", &unsynchronised.to_string());
        std::fs::write(&configuration, text)?;
        for seed in 1..=seeds {
            let case = format!("{kind}-{seed}");
            let expected = one(context, &native, &program, &configuration, seed, &case)?;
            let Some(mount) = &mount else {
                suite.check(&case, expected);
                continue;
            };
            let got = one(context, &mount.place, &program, &configuration, seed, &case)?;
            match (expected, context.gaps.reason("fsx", &case), got) {
                (Err(why), _, _) => suite.check(&case, Err(format!("natively: {why}"))),
                (Ok(()), None, got) => suite.check(&case, got),
                (Ok(()), Some(_), Err(_)) => suite.known += 1,
                (Ok(()), Some(_), Ok(())) => {
                    suite.check(
                        &case,
                        Err("passes now: remove it from c-tests/gaps.txt".to_owned()),
                    );
                }
            }
        }
    }
    Ok(suite)
}

fn one(
    context: &Context,
    place: &Place,
    program: &Path,
    configuration: &Path,
    seed: u32,
    case: &str,
) -> Result<Result<(), String>, Failure> {
    let dir = place.make_dir("fsx", "fsx")?;
    let operations = if context.long { "200000" } else { "10000" };
    let done = place
        .step(program)
        .arg("-f")
        .arg(configuration)
        .args(["-S", &seed.to_string(), "-N", operations, "-P", "/tmp"])
        .arg(dir.join(case))
        .timeout(Duration::from_secs(if context.long { 900 } else { 60 }))
        .log(&format!("fsx-{}-{case}", place.label))
        .run()?;
    for ending in ["fsxgood", "fsxlog"] {
        // Left behind by a failed run, in the directory given with -P.
        std::fs::remove_file(format!("/tmp/{case}.{ending}")).ok();
    }
    if done.ok() && done.stdout.contains("A-OK") {
        Ok(Ok(()))
    } else {
        Ok(Err(format!("{}: {}", done.ending(), done.tail(6))))
    }
}
