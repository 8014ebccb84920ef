//! fsx 0.3.2: random reads, writes, maps, truncates, allocations and copies of one file, verified at every read.

use super::{Context, tools};
use crate::Failure;
use crate::place::Place;
use crate::report::{Ending, Suite};
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
    let stage = TempDir::new(workspace::disk(), "fsx")?;
    let program = stage.path().join("fsx");
    std::fs::copy(tools::installed(&tools::FSX)?, &program)?;
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
            cases.push((format!("{kind}-{seed}"), (configuration.clone(), seed)));
        }
    }
    context.compare("fsx", &cases, |place, case, (configuration, seed)| {
        one(context, place, &program, configuration, *seed, case)
    })
}

fn one(
    context: &Context,
    place: &Place,
    program: &Path,
    configuration: &Path,
    seed: u32,
    case: &str,
) -> Result<Ending, Failure> {
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
    let good = done.ok() && done.stdout.contains("A-OK");
    Ok(Ending::of(&done, good, 6))
}
