//! Prints what discovery, the cache, joining and choosing cost. Run in release:
//! `cargo run --release -p pil4dfs-topology --example timing`
//!
//! Figures "in a new process" are first calls in fresh processes (this program starts itself);
//! the directory given as argument is read as root beside `/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use topology::cache::Cache;
use topology::launcher::LocalRank;
use topology::peers::Registry;
use topology::plan::{Peer, Policy, Process, choose};
use topology::{CpuSet, Topology};

const PROCESSES: usize = 200;

/// Time until the answer is there; giving it back does not count.
fn microseconds<T>(run: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    let answer = run();
    let time = start.elapsed().as_secs_f64() * 1e6;
    drop(answer);
    time
}

fn show(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| {
        times
            .get((times.len() - 1) * part / 100)
            .copied()
            .unwrap_or(0.0)
    };
    println!(
        "{what:<58} median {:>8.1} us   95% {:>8.1} us",
        at(50),
        at(95)
    );
}

/// One measurement in this process, for the parent.
fn once(what: &str, root: &Path, dir: &Path) -> f64 {
    match what {
        "discover" => microseconds(|| Topology::discover(root)),
        "cached" => microseconds(|| Cache::new(dir).topology(root)),
        _ => {
            let me = topology::process::this_process(LocalRank::new(0, 12));
            microseconds(|| Registry::new(dir, Some("timing")).join(&me))
        }
    }
}

fn in_new_processes(what: &str, root: &Path, dir: &Path) -> Vec<f64> {
    let program = std::env::current_exe().unwrap_or_default();
    let run = |_| {
        let output = Command::new(&program)
            .arg(what)
            .arg(root)
            .arg(dir)
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    (0..PROCESSES).filter_map(run).collect()
}

fn choosing(topology: &Topology, ranks: usize) -> Vec<f64> {
    let process = |rank: usize| Process {
        cpus: CpuSet::from_iter([rank % 104]),
        local: LocalRank::new(rank, ranks),
        current_cpu: None,
    };
    let peers: Vec<Peer> = (1..ranks)
        .map(|rank| Peer {
            process: process(rank),
            nic: None,
        })
        .collect();
    let me = process(0);
    let policy = Policy::default();
    (0..1000)
        .map(|_| microseconds(|| choose(topology, &me, &peers, policy)))
        .collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, root, dir] = arguments.as_slice() {
        println!("{}", once(what, root.as_ref(), dir.as_ref()));
        return;
    }
    let dir = PathBuf::from(format!("/dev/shm/nic-timing-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir(&dir) {
        eprintln!("{}: {error}", dir.display());
        return;
    }
    let given = arguments.first().map(PathBuf::from);
    for root in [Some(PathBuf::from("/")), given].into_iter().flatten() {
        let Ok(topology) = Topology::discover(&root) else {
            continue;
        };
        let size = format!(
            "{}: {} CPUs, {} NICs",
            root.display(),
            topology.cpus().len(),
            topology.nics.len()
        );
        println!("{size}");
        show(
            "  discovery in a new process",
            in_new_processes("discover", &root, &dir),
        );
        // The first fills the cache.
        let mut cached = in_new_processes("cached", &root, &dir);
        if !cached.is_empty() {
            cached.remove(0);
        }
        show("  topology from the cache in a new process", cached);
    }
    show(
        "joining in a new process",
        in_new_processes("join", Path::new("/"), &dir),
    );
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/aurora.json");
    if let Ok(aurora) = Topology::load(&recording) {
        for ranks in [1, 12, 104, 208] {
            show(
                &format!("choosing among {ranks} ranks, all known"),
                choosing(&aurora, ranks),
            );
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        eprintln!("{}: {error}", dir.display());
    }
}
