//! Random operations on a few names and descriptors, and of several processes on mappings: the trace in the mount equals
//! the trace on tmpfs, seed by seed.

use super::Context;
use super::c_programs::compile;
use super::programs::difference;
use crate::Failure;
use crate::mount::{Mount, PLAIN_FILES, THREE_COPIES};
use crate::place::Place;
use crate::report::Suite;
use crate::run::{Done, side_by_side};
use crate::workspace;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seeds on tmpfs, on the disk (which tells whether a difference is one of Linux's own), and in two kinds of containers.
pub(crate) fn random(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("random");
    let programs = compile(&workspace::root().join("c-tests/random"), "gcc", &[])?;
    if programs.is_empty() {
        return Err("no program in c-tests/random".into());
    }
    let mut places = vec![("disk", Place::native("disk", workspace::disk(), None)?)];
    let native = Place::native("native", workspace::tmpfs(), None)?;
    let mut mounts = Vec::new();
    if !context.native_only {
        mounts.push((
            "rp3",
            Mount::new(context.profile, None, "4GiB", THREE_COPIES)?,
        ));
        mounts.push((
            "sx",
            Mount::new(context.profile, None, "4GiB", PLAIN_FILES)?,
        ));
        places.clear();
    }
    let others: Vec<(&str, &Place)> = places
        .iter()
        .map(|(n, p)| (*n, p))
        .chain(mounts.iter().map(|(n, m)| (*n, &m.place)))
        .collect();
    let (seeds, count) = if context.long {
        (200, "50000")
    } else {
        (12, "8000")
    };
    let cases: Vec<(u32, &PathBuf)> = (1..=seeds)
        .flat_map(|seed| programs.iter().map(move |program| (seed, program)))
        .collect();
    let traces = side_by_side(&cases, |(seed, program)| {
        let trace = |place| trace(place, program, *seed, count).map_err(|error| error.to_string());
        let here: Result<Vec<Done>, String> =
            others.iter().map(|(_, place)| trace(place)).collect();
        Ok::<_, String>((trace(&native)?, here?))
    });
    for ((seed, program), traces) in cases.iter().zip(traces) {
        let title = program.file_name().unwrap_or_default().to_string_lossy();
        let (expected, here) = traces?;
        for ((name, _), got) in others.iter().zip(here) {
            let case = format!("{title}-{name}-{seed}");
            let result = if got.ok() && got.stdout == expected.stdout {
                Ok(())
            } else {
                Err(format!(
                    "{}: {} {}",
                    got.ending(),
                    difference(&expected.stdout, &got.stdout),
                    got.tail_of_stderr(2)
                ))
            };
            match (context.gaps.reason("random", &case), result) {
                (None, result) => suite.check(&case, result),
                (Some(_), Err(_)) => suite.known += 1,
                (Some(_), Ok(())) => {
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

fn trace(place: &Place, program: &Path, seed: u32, count: &str) -> Result<Done, Failure> {
    let title = program.file_name().unwrap_or_default().to_string_lossy();
    let log = format!("random-{title}-{}-{seed}", place.label);
    let dir = place.make_dir(&log, &log)?;
    let done = place
        .step(program)
        .arg(&dir)
        .args([&seed.to_string(), count])
        .timeout(Duration::from_secs(120))
        .log(&log)
        .run()?;
    place.step("rm").arg("-rf").arg(&dir).log(&log).run()?;
    Ok(done)
}
