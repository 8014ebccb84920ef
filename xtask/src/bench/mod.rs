//! `cargo xtask bench`: one C program, run in turns on tmpfs, on the disk's file system and in mounts; medians, ratios
//! to tmpfs, verdicts against the floor and the goal of each row; a table, JSON and a chart.

mod chart;
mod rows;

use crate::Failure;
use crate::mount::{Mount, PLAIN_FILES, THREE_COPIES};
use crate::packages;
use crate::place::{Place, artefacts};
use crate::run::Step;
use crate::workspace::{self, Profile};
use rows::{Better, ROWS, Row};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Five rounds of everything but the largest directories
    #[arg(long)]
    quick: bool,
    /// Only the kernel's file systems
    #[arg(long)]
    native: bool,
    /// Only recovery
    #[arg(long)]
    recovery: bool,
    /// Use the programs and libraries as they are
    #[arg(long)]
    no_build: bool,
}

/// Medians by place and row.
type Medians = BTreeMap<String, BTreeMap<String, f64>>;

/// Measures and prints; true when every floor is kept.
pub(crate) fn bench(options: &Options) -> Result<bool, Failure> {
    packages::ensure()?;
    if !options.no_build && !options.native {
        Profile::Release.build()?;
    }
    let program = compile()?;
    if options.recovery {
        return recovery_alone(&program);
    }
    let tmpfs = Place::native("tmpfs", workspace::tmpfs(), None)?;
    let disk = Place::native("disk", workspace::disk(), None)?;
    let mounts: Vec<(&str, Mount)> = if options.native {
        Vec::new()
    } else {
        vec![
            (
                "rp3",
                Mount::new(Profile::Release, None, "16GiB", THREE_COPIES)?,
            ),
            (
                "sx",
                Mount::new(Profile::Release, None, "16GiB", PLAIN_FILES)?,
            ),
        ]
    };
    let mut places: Vec<(&str, &Place)> = vec![("tmpfs", &tmpfs), ("disk", &disk)];
    places.extend(mounts.iter().map(|(name, mount)| (*name, &mount.place)));

    warm_memory();
    let rounds = if options.quick { 5 } else { 7 };
    let mut samples: BTreeMap<String, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    let direct = example("pil4dfs-dfs", "fsrows")?;
    let attach = example("pil4dfs-client", "attach")?;
    if !options.native {
        // Before the disk's own file system is busy with what it was made to do.
        println!("recovery");
        let rows = samples.entry("dfs".to_owned()).or_default();
        measure_recovery(&program, &attach, rows)?;
    }
    for round in 1..=rounds {
        println!("round {round} of {rounds}: dfs");
        let scratch = Place::native("dfs", workspace::disk(), None)?;
        let rows = samples.entry("dfs".to_owned()).or_default();
        measure(&direct, &scratch, &[], rows)?;
        if let Some((_, mount)) = mounts.first() {
            measure_attach(&attach, mount, rows)?;
        }
        for (name, place) in &places {
            println!("round {round} of {rounds}: {name}");
            for mode in ["small", "exec"] {
                measure(
                    &program,
                    place,
                    &[mode],
                    samples.entry((*name).to_owned()).or_default(),
                )?;
            }
        }
    }
    let durable = workspace::root().join("benches/durable.py");
    for round in 1..=3 {
        for (name, place) in places.iter().filter(|(name, _)| *name != "tmpfs") {
            println!("durable, round {round} of 3: {name}");
            let samples = samples.entry((*name).to_owned()).or_default();
            measure(&durable, place, &[], samples)?;
        }
    }
    for (name, place) in places.iter().filter(|(name, _)| *name != "sx") {
        // The longest of so many operations is what else the machine had to do, once in a while.
        let times = if *name == "disk" { 1 } else { 5 };
        println!("checkpoints: {name}");
        let samples = samples.entry((*name).to_owned()).or_default();
        for _ in 0..times {
            measure(&program, place, &["checkpoints"], samples)?;
        }
    }
    for (name, place) in places.iter().filter(|(name, _)| *name != "sx") {
        // A million files take the disk's file system more than ten minutes, and nothing is judged by them.
        let largest = match options.quick || *name == "disk" {
            true => "100000",
            false => "1000000",
        };
        println!("growth to {largest}: {name}");
        measure(
            &program,
            place,
            &["scale", largest],
            samples.entry((*name).to_owned()).or_default(),
        )?;
    }
    let medians: Medians = samples
        .into_iter()
        .map(|(place, rows)| {
            (
                place,
                rows.into_iter()
                    .map(|(row, values)| (row, median(values)))
                    .collect::<BTreeMap<_, _>>(),
            )
        })
        .collect();
    Ok(report(&medians, rounds)? || options.native)
}

fn compile() -> Result<PathBuf, Failure> {
    let program = artefacts()?.join("fsbench");
    let done = Step::new("gcc")
        .args(["-O2", "-Wall", "-Wextra", "-o"])
        .arg(&program)
        .arg(workspace::root().join("benches/fsbench.c"))
        .log("bench")
        .run()?;
    if done.ok() {
        Ok(program)
    } else {
        Err(format!("gcc: {}", done.tail(20)).into())
    }
}

/// Uses some gigabytes of memory once. A virtual machine gets the memory it has never used page by page from its host
/// (10 us a page), which would be counted as the cost of whatever happens to touch it first.
fn warm_memory() {
    const PIECE: usize = 64 << 20;
    const PIECES_MAX: usize = 64;
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let available_kib = line.and_then(|l| l.split_whitespace().next()?.parse::<usize>().ok());
    let pieces = (available_kib.unwrap_or(0) / (PIECE >> 10) / 3).min(PIECES_MAX);
    println!("touching {} MiB of memory", pieces * (PIECE >> 20));
    let touched: Vec<Vec<u8>> = (0..pieces).map(|_| vec![1u8; PIECE]).collect();
    std::hint::black_box(&touched);
}

/// An example that measures without interception: `fsrows` prints the rows of the C program for a pool in the empty
/// directory it is given, `attach` how long a fresh process takes to attach.
fn example(package: &str, name: &str) -> Result<PathBuf, Failure> {
    let done = Step::new("cargo")
        .args([
            "build",
            "--release",
            "--package",
            package,
            "--example",
            name,
        ])
        .cwd(workspace::root())
        .timeout(Duration::from_secs(600))
        .log("bench")
        .run()?;
    if done.ok() {
        Ok(Profile::Release.dir().join("examples").join(name))
    } else {
        Err(format!("{name}: {}", done.tail(20)).into())
    }
}

/// Measures recovery and prints its rows; true when every floor is kept.
fn recovery_alone(program: &Path) -> Result<bool, Failure> {
    warm_memory();
    let mut rows = BTreeMap::new();
    measure_recovery(program, &example("pil4dfs-client", "attach")?, &mut rows)?;
    let rows = rows.into_iter().map(|(row, all): (String, Vec<f64>)| {
        println!("{row}: {all:.2?}");
        (row, median(all))
    });
    let medians = Medians::from([("dfs".to_owned(), rows.collect())]);
    let lines = judge(&medians);
    let measured = lines.iter().filter(|line| line.figure.is_some());
    let verdicts = measured.map(|line| {
        let figure = line.figure.unwrap_or(f64::NAN);
        println!(
            "{}: {figure:.2} {}: {}",
            line.row.name, line.row.unit, line.verdict
        );
        line.verdict != "BELOW"
    });
    Ok(verdicts.fold(true, |all, kept| all & kept))
}

/// Recovers a pool from its files, several times from the same log, which no checkpoint has shortened: as
/// after the end of shared memory, and as after a power failure.
fn measure_recovery(
    program: &Path,
    attach: &Path,
    samples: &mut BTreeMap<String, Vec<f64>>,
) -> Result<(), Failure> {
    const TIMES: usize = 5;
    let mount = Mount::new(Profile::Release, None, "16GiB", THREE_COPIES)?;
    for _ in 0..3 {
        measure(
            program,
            &mount.place,
            &["scale", "10000"],
            &mut BTreeMap::new(),
        )?;
    }
    for time in 0..2 * TIMES {
        let (row, bytes) = match time < TIMES {
            true => ("recovery", mount.lose_arena()?),
            false => ("recovery_power", mount.lose_power()?),
        };
        let gigabytes = bytes / 1e9;
        let mut spent = BTreeMap::new();
        attach_once(attach, &mount, &mut spent)?;
        let spent = spent.remove("attach").unwrap_or_default();
        let seconds = spent.first().copied().unwrap_or(f64::NAN) / 1e6;
        for (row, value) in [
            (row, seconds / gigabytes),
            ("recovered_log", gigabytes * 1e3),
        ] {
            samples.entry(row.to_owned()).or_default().push(value);
        }
    }
    Ok(())
}

/// Attaches a mount's container in fresh processes.
fn measure_attach(
    program: &Path,
    mount: &Mount,
    samples: &mut BTreeMap<String, Vec<f64>>,
) -> Result<(), Failure> {
    const TIMES: usize = 5;
    for _ in 0..TIMES {
        attach_once(program, mount, samples)?;
    }
    Ok(())
}

fn attach_once(
    program: &Path,
    mount: &Mount,
    samples: &mut BTreeMap<String, Vec<f64>>,
) -> Result<(), Failure> {
    let done = Step::new(program)
        .args(mount.names())
        .timeout(Duration::from_secs(60))
        .log("bench")
        .run()?;
    let value = done.stdout.trim().strip_prefix("attach ");
    let value = value.and_then(|value| value.parse::<f64>().ok());
    let Some(value) = value.filter(|_| done.ok()) else {
        return Err(format!("attach: {}", done.tail(3)).into());
    };
    samples.entry("attach".to_owned()).or_default().push(value);
    Ok(())
}

fn measure(
    program: &Path,
    place: &Place,
    args: &[&str],
    samples: &mut BTreeMap<String, Vec<f64>>,
) -> Result<(), Failure> {
    // What others have written is not this one's to wait for.
    std::process::Command::new("sync").status()?;
    let done = place
        .step(program)
        .arg(&place.dir)
        .args(args.iter().copied())
        .timeout(Duration::from_secs(600))
        .log("bench")
        .run()?;
    for line in done.stdout.lines() {
        if let Some((row, value)) = line.split_once(' ')
            && let Ok(value) = value.parse::<f64>()
        {
            samples.entry(row.to_owned()).or_default().push(value);
        }
    }
    if !done.ok() {
        // The rows that were measured still count.
        println!(
            "  {} {}: {}: {}",
            place.label,
            args.join(" "),
            done.ending(),
            done.tail(2)
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// One judged row.
struct Line {
    row: &'static Row,
    /// Value measured in the mount, in the row's unit.
    value: Option<f64>,
    /// Value on tmpfs and on the disk.
    tmpfs: Option<f64>,
    disk: Option<f64>,
    /// Value through `dfs` directly.
    direct: Option<f64>,
    /// The figure the floor and the goal speak about.
    figure: Option<f64>,
    verdict: &'static str,
}

fn judge(medians: &Medians) -> Vec<Line> {
    let get = |place: &str, row: &str| medians.get(place).and_then(|rows| rows.get(row)).copied();
    ROWS.iter()
        .map(|row| {
            let (value, tmpfs, disk) = (
                get(row.place, row.name),
                get("tmpfs", row.name),
                get("disk", row.name),
            );
            let base = row.base.and_then(|base| get(row.place, base));
            let figure = row.figure(value, tmpfs, disk, base);
            let verdict = match (figure, row.better) {
                (None, _) => "not measured",
                (Some(f), Better::Less) if f <= row.goal => "goal",
                (Some(f), Better::Less) if f <= row.floor => "floor",
                (Some(f), Better::More) if f >= row.goal => "goal",
                (Some(f), Better::More) if f >= row.floor => "floor",
                _ => "BELOW",
            };
            Line {
                row,
                value,
                tmpfs,
                disk,
                direct: get("dfs", row.name),
                figure,
                verdict,
            }
        })
        .collect()
}

fn report(medians: &Medians, rounds: u32) -> Result<bool, Failure> {
    let lines = judge(medians);
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.0}"));
    println!(
        "\n{:<26} {:>8} {:>10} {:>10} {:>10} {:>10} {:>9} {:>7} {:>7}  verdict",
        "row", "unit", "tmpfs", "disk", "dfs", "mount", "figure", "floor", "goal"
    );
    for line in &lines {
        println!(
            "{:<26} {:>8} {:>10} {:>10} {:>10} {:>10} {:>9} {:>7} {:>7}  {}",
            format!("{} ({})", line.row.name, line.row.place),
            line.row.unit,
            show(line.tmpfs),
            show(line.disk),
            show(line.direct),
            show(line.value),
            line.figure
                .map_or("-".to_owned(), |f| format!("{f:.2}{}", line.row.sign)),
            format!("{}{}", line.row.floor, line.row.sign),
            format!("{}{}", line.row.goal, line.row.sign),
            line.verdict
        );
    }
    let transfer = |place: &str| medians.get(place)?.get("line_transfer").copied();
    if let (Some(rp3), Some(tmpfs)) = (transfer("rp3"), transfer("tmpfs")) {
        println!(
            "\nA cache line went from one processor to another in {rp3:.0} ns beside the rows of the mount, in \
             {tmpfs:.0} ns beside those of tmpfs."
        );
    }
    growth(medians);
    let dir = workspace::target().join("bench");
    std::fs::create_dir_all(&dir)?;
    let json = serde_json::json!({
        "rounds": rounds,
        "medians": medians,
        "rows": lines.iter().map(|line| serde_json::json!({
            "row": line.row.name, "place": line.row.place, "unit": line.row.unit, "value": line.value,
            "tmpfs": line.tmpfs, "disk": line.disk, "dfs": line.direct, "figure": line.figure, "floor": line.row.floor,
            "goal": line.row.goal, "verdict": line.verdict,
        })).collect::<Vec<_>>(),
    });
    std::fs::write(dir.join("bench.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(dir.join("bench.svg"), chart::svg(&lines))?;
    let below = lines
        .iter()
        .filter(|line| line.verdict == "BELOW" || line.verdict == "not measured")
        .count();
    println!(
        "\n{} rows, {below} below the floor or not measured; {}",
        lines.len(),
        dir.display()
    );
    Ok(below == 0)
}

/// The rows that must stay flat.
fn growth(medians: &Medians) {
    println!(
        "\n{:<12} {:>10} {:>12} {:>12} {:>12} {:>12}",
        "", "", "entries", "entries", "files", "files"
    );
    println!(
        "{:<12} {:>10} {:>12} {:>12} {:>12} {:>12}",
        "place", "count", "create ns", "stat ns", "create ns", "stat ns"
    );
    for (place, rows) in medians {
        for count in [1_u64, 10, 100, 1_000, 10_000, 100_000, 1_000_000] {
            let get = |name: String| {
                rows.get(&name)
                    .map_or("-".to_owned(), |v| format!("{v:.0}"))
            };
            if rows.contains_key(&format!("entries_{count}_create")) {
                println!(
                    "{:<12} {:>10} {:>12} {:>12} {:>12} {:>12}",
                    place,
                    count,
                    get(format!("entries_{count}_create")),
                    get(format!("entries_{count}_stat")),
                    get(format!("files_{count}_create")),
                    get(format!("files_{count}_stat"))
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn verdicts_follow_floor_and_goal() {
        let mut medians = Medians::new();
        medians
            .entry("tmpfs".into())
            .or_default()
            .insert("stat_hot".into(), 400.0);
        medians
            .entry("rp3".into())
            .or_default()
            .insert("stat_hot".into(), 180.0);
        let lines = judge(&medians);
        let line = lines
            .iter()
            .find(|line| line.row.name == "stat_hot")
            .unwrap();
        assert_eq!(line.verdict, "floor");
        assert!(lines.iter().any(|line| line.verdict == "not measured"));
    }
}
