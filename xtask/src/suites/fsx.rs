//! fsx 0.3.2: random reads, writes, maps, truncates, allocations and copies of one file, verified at every read.

use super::{Context, tools};
use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::place::Place;
use crate::report::Suite;
use crate::run::side_by_side;
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
    std::fs::copy(tools::installed(&tools::FSX)?, &program)?;
    let native = Place::native("native", workspace::tmpfs(), None)?;
    let mount = if context.native_only {
        None
    } else {
        Some(Mount::new(context.profile, None, "4GiB", THREE_COPIES)?)
    };
    let seeds: u32 = if context.long { 40 } else { 5 };
    let mut cases = Vec::new();
    for (kind, maps, flen, unsynchronised) in KINDS {
        let configuration = stage.path().join(format!("{kind}.toml"));
        let text = CONFIGURATION
            .replace("FLEN", &flen.to_string())
            .replace("MAPS", &maps.to_string())
            .replace("NOMSYNC", &unsynchronised.to_string());
        std::fs::write(&configuration, text)?;
        for seed in 1..=seeds {
            cases.push((format!("{kind}-{seed}"), configuration.clone(), seed));
        }
    }
    let results = side_by_side(&cases, |(case, configuration, seed)| {
        let one = |place| one(context, place, &program, configuration, *seed, case);
        let expected = one(&native).map_err(|error| error.to_string())?;
        let got = mount.as_ref().map(|mount| one(&mount.place));
        let got = got.transpose().map_err(|error| error.to_string())?;
        Ok::<_, String>((expected, got))
    });
    for ((case, _, _), result) in cases.iter().zip(results) {
        let (expected, got) = result?;
        let known = context.gaps.reason("fsx", case).is_some();
        let judged = match (expected, got) {
            (Err(why), Some(_)) => Err(format!("natively: {why}")),
            (expected, None) => expected,
            (Ok(()), Some(Err(_))) if known => {
                suite.known += 1;
                continue;
            }
            (Ok(()), Some(Ok(()))) if known => {
                Err("passes now: remove it from c-tests/gaps.txt".to_owned())
            }
            (Ok(()), Some(got)) => got,
        };
        suite.check(case, judged);
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
