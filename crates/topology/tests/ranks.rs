//! Real MPI ranks: mpich and Open MPI, bound and unbound, and processes that come and go.
//!
//! Needs `mpiexec.mpich` and `mpiexec.openmpi` (Debian packages mpich and openmpi-bin), and for
//! rank files Open MPI 4.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{recorded, recording};
use topology::binding::{Binding, Syntaxes};
use topology::plan::{Policy, plan};
use topology::{CpuSet, Topology};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nic-choice");
const GUIDE_LIST: &str = "CPU_BINDING1=list:4:9:14:19:20:25:56:61:66:71:74:79";

#[derive(Clone, Copy, Debug)]
enum Mpi {
    Mpich,
    OpenMpi,
}

const BOTH: [Mpi; 2] = [Mpi::Mpich, Mpi::OpenMpi];

/// A rank's line of output.
#[derive(Debug)]
struct Said {
    size: usize,
    nic: String,
    line: String,
}

impl Mpi {
    fn command(self, ranks: usize, binding: &[&str]) -> Command {
        let (program, package) = match self {
            Mpi::Mpich => ("mpiexec.mpich", "mpich"),
            Mpi::OpenMpi => ("mpiexec.openmpi", "openmpi-bin"),
        };
        let found = std::env::var("PATH").is_ok_and(|path| {
            path.split(':')
                .any(|dir| Path::new(dir).join(program).exists())
        });
        assert!(found, "{program} is missing: install the package {package}");
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "100", program]);
        if let Mpi::OpenMpi = self {
            command.args(["--allow-run-as-root", "--oversubscribe"]);
        }
        command.args(["-n", &ranks.to_string()]).args(binding);
        // Nothing of a surrounding job may speak for these ranks.
        for (name, _) in std::env::vars() {
            let foreign = [
                "PALS_", "PMI", "MPI_", "OMPI_", "SLURM_", "FLUX_", "D_", "OFI_", "DAOS_",
            ];
            if foreign.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs `ranks` processes on the node of `file`; answers by local rank.
    fn run(self, ranks: usize, binding: &[&str], file: &Path, arguments: &[&str]) -> Vec<Said> {
        let dir = tempfile::tempdir().unwrap();
        let output = self
            .command(ranks, binding)
            .arg(PROGRAM)
            .args(["--dir", dir.path().to_str().unwrap()])
            .args(arguments)
            .env("DAOS_TOPOLOGY_FILE", file)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?} {binding:?}: {out}{err}");
        by_rank(out.lines())
    }
}

fn by_rank<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Said> {
    let mut ranks: BTreeMap<usize, Said> = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        let (rank, size, nic) = (word().parse().unwrap(), word().parse().unwrap(), word());
        let said = Said {
            size,
            nic: nic.to_owned(),
            line: line.to_owned(),
        };
        assert!(ranks.insert(rank, said).is_none(), "rank {rank} twice");
    }
    let count = ranks.len();
    assert!(ranks.keys().copied().eq(0..count), "{ranks:?}");
    ranks.into_values().collect()
}

fn planned(topology: &Topology, bindings: &[CpuSet]) -> Vec<String> {
    let name = |nic: Option<usize>| topology.nics[nic.unwrap()].name.clone();
    plan(topology, bindings, Policy::default())
        .choices
        .iter()
        .map(|c| name(c.nic))
        .collect()
}

fn assert_plan(mpi: Mpi, said: &[Said], topology: &Topology, bindings: &[CpuSet]) {
    let nics: Vec<&str> = said.iter().map(|said| said.nic.as_str()).collect();
    assert_eq!(nics, planned(topology, bindings), "{mpi:?}: {said:#?}");
    assert!(said.iter().all(|said| said.size == bindings.len()));
    for said in said {
        let launcher = match mpi {
            Mpi::Mpich => "| MPICH Hydra |",
            Mpi::OpenMpi => "| Open MPI |",
        };
        assert!(said.line.contains(launcher), "{}", said.line);
        assert!(
            said.line.contains(&format!("| D_INTERFACE={} |", said.nic)),
            "{}",
            said.line
        );
    }
}

/// A node with as many CPUs as the tests may count on: one core per CPU of this machine, dealt to
/// two sockets with two interfaces each (one socket if there is one CPU).
fn node_like_here(dir: &Path) -> (Topology, PathBuf) {
    let cpus: Vec<usize> = topology::process::allowed_cpus().iter().collect();
    let half = cpus.len().div_ceil(2);
    let sockets: Vec<Vec<String>> = cpus
        .chunks(half)
        .map(|cpus| cpus.iter().map(usize::to_string).collect())
        .collect();
    let nics: Vec<String> = (0..2 * sockets.len())
        .map(|nic| {
            format!(
                "{{\"name\": \"hsn{nic}\", \"domain\": \"cxi{nic}\", \"kind\": \"cxi\", \
                 \"numa\": {0}, \"socket\": {0}, \"state\": \"up\"}}",
                nic / 2
            )
        })
        .collect();
    let text = format!(
        "{{\"format\": \"daos-topology\", \"version\": 1, \"sockets\": {sockets:?}, \
         \"nics\": [{}]}}",
        nics.join(",")
    );
    let file = dir.join("node.json");
    std::fs::write(&file, text).unwrap();
    (Topology::load(&file).unwrap(), file)
}

#[test]
fn unbound_ranks_follow_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (node, file) = node_like_here(dir.path());
    for mpi in BOTH {
        let unbound: &[&str] = match mpi {
            Mpi::Mpich => &[],
            Mpi::OpenMpi => &["--bind-to", "none"],
        };
        for ranks in [4, 7, 12] {
            let said = mpi.run(ranks, unbound, &file, &[]);
            assert_plan(mpi, &said, &node, &vec![node.online(); ranks]);
        }
    }
}

/// Ranks really bound by the launcher, by the options this crate writes for it.
#[test]
fn ranks_bound_by_their_launcher_follow_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (node, file) = node_like_here(dir.path());
    let cpus: Vec<usize> = node.online().iter().collect();
    for mpi in BOTH {
        for ranks in [4, 12] {
            // Backwards, so that rank order and CPU order differ.
            let bindings: Vec<CpuSet> = (0..ranks)
                .map(|rank| CpuSet::from_iter([cpus[cpus.len() - 1 - rank % cpus.len()]]))
                .collect();
            let syntaxes = Syntaxes::of(&node, &bindings);
            let rankfile = dir.path().join("rankfile");
            let options = match mpi {
                Mpi::Mpich => syntaxes.hydra,
                Mpi::OpenMpi => {
                    std::fs::write(&rankfile, syntaxes.openmpi_rankfile.unwrap()).unwrap();
                    syntaxes.openmpi.replace("FILE", rankfile.to_str().unwrap())
                }
            };
            let options: Vec<&str> = options.split(' ').collect();
            let said = mpi.run(ranks, &options, &file, &[]);
            assert_plan(mpi, &said, &node, &bindings);
        }
    }
}

/// The list form for Open MPI, which sorts: one rank per CPU.
#[test]
fn open_mpi_cpu_set() {
    let dir = tempfile::tempdir().unwrap();
    let (node, file) = node_like_here(dir.path());
    let bindings: Vec<CpuSet> = node
        .online()
        .iter()
        .take(12)
        .map(|cpu| CpuSet::from_iter([cpu]))
        .collect();
    let syntaxes = Syntaxes::of(&node, &bindings);
    assert_eq!(syntaxes.openmpi_rankfile, None);
    let options: Vec<&str> = syntaxes.openmpi.split(' ').collect();
    let said = Mpi::OpenMpi.run(bindings.len(), &options, &file, &[]);
    assert_plan(Mpi::OpenMpi, &said, &node, &bindings);
}

/// The guide's job on its node: 12 ranks with its list, each told its CPU of the recorded node.
#[test]
fn the_guides_twelve_ranks() {
    let aurora = recorded("aurora.json");
    let bindings = Binding::parse(GUIDE_LIST, None)
        .unwrap()
        .cpus_of_ranks(&aurora, 12)
        .unwrap();
    for mpi in BOTH {
        let said = mpi.run(
            12,
            &[],
            &recording("aurora.json"),
            &["--cpu-bind", GUIDE_LIST],
        );
        assert_plan(mpi, &said, &aurora, &bindings);
        let nics: Vec<&str> = said.iter().map(|said| said.nic.as_str()).collect();
        let expected = [0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 6, 7].map(|nic| format!("hsn{nic}"));
        assert_eq!(nics, expected);
        for (nic, said) in nics.iter().zip(&said) {
            let domain = nic.replace("hsn", "cxi");
            assert!(
                said.line.contains(&format!("D_DOMAIN={domain}")),
                "{}",
                said.line
            );
        }
    }
}

/// Ranks that choose at once, knowing only who came before: even on each socket at the end.
#[test]
fn ranks_that_do_not_wait_are_even() {
    let aurora = recorded("aurora.json");
    for mpi in BOTH {
        let arguments = ["--at-once", "--cpu-bind", GUIDE_LIST];
        let said = mpi.run(12, &[], &recording("aurora.json"), &arguments);
        for socket in 0..2 {
            let mut loads: Vec<usize> = (4 * socket..4 * socket + 4)
                .map(|nic| {
                    said.iter()
                        .filter(|s| s.nic == aurora.nics[nic].name)
                        .count()
                })
                .collect();
            loads.sort_unstable();
            assert_eq!(loads, [1, 1, 2, 2], "{mpi:?}: {said:#?}");
        }
    }
}

#[test]
fn the_user_wins_and_is_warned_once() {
    let file = recording("aurora.json");
    for mpi in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let output = mpi
            .command(4, &[])
            .args([PROGRAM, "--dir", dir.path().to_str().unwrap()])
            .env("DAOS_TOPOLOGY_FILE", &file)
            .env("D_INTERFACE", "hsn99")
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(out.matches("hsn99: named by the user").count(), 4, "{out}");
        assert_eq!(
            out.matches("is not on this machine; it is used all the same")
                .count(),
            1,
            "{out}"
        );
        assert!(!out.contains("D_INTERFACE="), "{out}");
    }
}

struct Held {
    child: Child,
    line: String,
}

impl Held {
    /// A process of the guide's job, started by hand; it keeps its place until dropped.
    fn start(dir: &Path, rank: Option<usize>) -> Held {
        let mut command = Command::new(PROGRAM);
        command.args(["--at-once", "--hold", "--dir", dir.to_str().unwrap()]);
        command
            .env_clear()
            .env("DAOS_TOPOLOGY_FILE", recording("aurora.json"));
        command.env("PALS_APID", "7");
        if let Some(rank) = rank {
            command
                .env("PALS_LOCAL_RANKID", rank.to_string())
                .env("PALS_LOCAL_SIZE", "12");
            command.args(["--cpu-bind", GUIDE_LIST]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        Held { child, line }
    }

    fn nic(&self) -> &str {
        self.line.split(' ').nth(2).unwrap()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// A killed rank's place is free again; the file of a finished job is removed by the next job.
#[test]
fn places_of_the_dead_are_free() {
    let dir = tempfile::tempdir().unwrap();
    // CPUs 4 and 20 both belong to hsn0: the second rank is displaced while the first lives.
    let mut first = Held::start(dir.path(), Some(0));
    assert_eq!(first.nic(), "hsn0");
    let second = Held::start(dir.path(), Some(4));
    assert_eq!(second.nic(), "hsn1", "{}", second.line);
    assert!(
        second.line.contains("but the share of hsn0 is taken"),
        "{}",
        second.line
    );
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let third = Held::start(dir.path(), Some(0));
    assert_eq!(third.nic(), "hsn0", "{}", third.line);
    drop((first, second, third));
    let is_registry = |name: std::ffi::OsString| name.to_str().unwrap().starts_with("daos-nic-");
    let files = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        entries
            .filter(|entry| is_registry(entry.as_ref().unwrap().file_name()))
            .count()
    };
    assert_eq!(files(), 1);
    let other = Command::new(PROGRAM)
        .args(["--dir", dir.path().to_str().unwrap()])
        .env("DAOS_TOPOLOGY_FILE", recording("aurora.json"))
        .env("PALS_APID", "8")
        .env("PALS_LOCAL_RANKID", "0")
        .env("PALS_LOCAL_SIZE", "1")
        .output()
        .unwrap();
    assert!(other.status.success());
    assert_eq!(files(), 1, "the file of the finished job is gone");
}

/// A full node's worth of processes that choose as they come, all at once: 26 on each interface.
#[test]
fn two_hundred_and_eight_processes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let start = |rank: usize| {
        Command::new(PROGRAM)
            .args([
                "--at-once",
                "--cpu-bind",
                "none",
                "--dir",
                dir.path().to_str().unwrap(),
            ])
            .env_clear()
            .env("DAOS_TOPOLOGY_FILE", recording("aurora.json"))
            .env("PALS_APID", "9")
            .env("PALS_LOCAL_RANKID", rank.to_string())
            .env("PALS_LOCAL_SIZE", "208")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<Child> = (0..208).map(start).collect();
    let outputs = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().stdout);
    let said = String::from_utf8(outputs.collect::<Vec<_>>().concat()).unwrap();
    let ranks = by_rank(said.lines());
    for nic in 0..8 {
        let name = format!("hsn{nic}");
        assert_eq!(
            ranks.iter().filter(|said| said.nic == name).count(),
            26,
            "{name}: {said}"
        );
    }
}

/// Hydra gives its jobs no number: they are told apart by its process on the node, also from
/// processes without a job.
#[test]
fn jobs_without_a_number_have_their_own_registry() {
    let dir = tempfile::tempdir().unwrap();
    let held = Held::start(dir.path(), None);
    let output = Mpi::Mpich
        .command(4, &[])
        .args([PROGRAM, "--dir", dir.path().to_str().unwrap()])
        .env("DAOS_TOPOLOGY_FILE", recording("aurora.json"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut loads: Vec<usize> = (0..4)
        .map(|nic| said.matches(&format!("| D_INTERFACE=hsn{nic} |")).count())
        .collect();
    loads.sort_unstable();
    assert_eq!(
        loads, [1; 4],
        "the process beside does not count here: {said}"
    );
    let registries = |entry: std::io::Result<std::fs::DirEntry>| {
        entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with("daos-nic-")
    };
    let count = std::fs::read_dir(dir.path())
        .unwrap()
        .map(registries)
        .filter(|&is| is)
        .count();
    assert_eq!(count, 2);
    drop(held);
}

/// A registry someone else prepared, or that is damaged, is not trusted; the choice is made anyway.
#[test]
fn damaged_or_foreign_registries() {
    let choose = |prepare: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        drop(Held::start(dir.path(), Some(0)));
        let file = std::fs::read_dir(dir.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        prepare(&file);
        let held = Held::start(dir.path(), Some(4));
        assert_eq!(held.nic(), "hsn0", "{}", held.line);
        held.line.clone()
    };
    let write = |text: &'static [u8]| move |file: &Path| std::fs::write(file, text).unwrap();
    assert!(!choose(&write(b"\xff\xfe garbage")).contains("not known"));
    assert!(!choose(&write(b"daos-nic 1 another-boot\n1 5 0 12 hsn0 4 .\n")).contains("not known"));
    choose(&|file| {
        let mut open = std::fs::OpenOptions::new().append(true).open(file).unwrap();
        // Torn, absurd and foreign lines beside the sound header.
        open.write_all(b"1 0 0 12 hsn0 4 .\n-5 0 - - - 4 .\n9 9 9 9 9\n12 7 3 12 hsn")
            .unwrap();
    });
    let line = choose(&|file| {
        std::fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", file).unwrap();
    });
    assert!(line.contains("other ranks not known"), "{line}");
    let line = choose(&|file| {
        std::fs::remove_file(file).unwrap();
        std::fs::create_dir(file).unwrap();
    });
    assert!(line.contains("other ranks not known"), "{line}");
    let line = choose(&|file| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
    });
    assert!(line.contains("other ranks not known"), "{line}");
}

/// A process that is stopped while it holds the lock delays the others, but does not hang them.
#[test]
fn a_lock_that_is_not_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = Held::start(dir.path(), Some(0));
    let mut entries = std::fs::read_dir(dir.path()).unwrap();
    let file = std::fs::File::open(entries.next().unwrap().unwrap().path()).unwrap();
    file.lock().unwrap();
    let second = Held::start(dir.path(), Some(4));
    assert_eq!(
        second.nic(),
        first.nic(),
        "its core's interface: {}",
        second.line
    );
    assert!(
        second.line.contains("other ranks not known"),
        "{}",
        second.line
    );
}

/// One that gets little of the processor, because hundreds of ranks wait on few of them, is waited for.
#[test]
fn a_lock_that_is_given_back_late() {
    let dir = tempfile::tempdir().unwrap();
    let first = Held::start(dir.path(), Some(0));
    let mut entries = std::fs::read_dir(dir.path()).unwrap();
    let file = std::fs::File::open(entries.next().unwrap().unwrap().path()).unwrap();
    file.lock().unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        drop(file);
    });
    let second = Held::start(dir.path(), Some(4));
    holder.join().unwrap();
    assert_eq!((first.nic(), second.nic()), ("hsn0", "hsn1"));
    assert!(
        !second.line.contains("other ranks not known"),
        "{}",
        second.line
    );
}
