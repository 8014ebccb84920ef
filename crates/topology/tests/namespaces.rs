//! Real interfaces in a network namespace of the test's own, with the kernel's real sysfs.
//!
//! Needs root and the programs `unshare` and `mount` (util-linux) and `ip` (iproute2).

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::{recorded, write_sysfs};
use topology::cache::{Cache, Source, is_up_now, refresh_states};
use topology::plan::{Choice, Policy, Process, choose};
use topology::{CpuSet, LinkState, NicKind, Topology};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nic-choice");
const END: &str = "----end of answer";

/// A shell in new network and mount namespaces; they end with it.
struct Namespace {
    shell: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Namespace {
    fn new() -> Namespace {
        let mut shell = Command::new("unshare")
            .args(["--net", "--mount", "--", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is missing: install the package util-linux");
        let input = shell.stdin.take();
        let output = BufReader::new(shell.stdout.take().unwrap());
        let mut made = Namespace {
            shell,
            input,
            output,
        };
        // A fresh sysfs shows this namespace's interfaces; a fresh /dev/shm keeps files apart.
        let ready = made.run(
            "mount -t sysfs sysfs /sys && mount -t tmpfs none /dev/shm && ip link set lo up && \
             echo ready",
        );
        assert_eq!(
            ready,
            ["ready"],
            "needs root and the packages util-linux and iproute2"
        );
        // Some kernels put interfaces of their own into every namespace.
        made.run("for i in $(ls /sys/class/net); do ip link delete $i 2>/dev/null; done");
        made
    }

    /// The lines a command prints, its errors included.
    fn run(&mut self, command: &str) -> Vec<String> {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{{ {command} ; }} 2>&1; echo '{END}'").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let count = self.output.read_line(&mut line).unwrap();
            assert!(count > 0, "the shell ended after {lines:?}");
            match line.trim_end() {
                END => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    fn ip(&mut self, arguments: &str) {
        assert_eq!(
            self.run(&format!("ip {arguments}")),
            Vec::<String>::new(),
            "ip {arguments}"
        );
    }

    /// Two ends of a cable, both up.
    fn cable(&mut self, one: &str, other: &str) {
        self.ip(&format!("link add {one} type veth peer name {other}"));
        self.ip(&format!("link set {one} up"));
        self.switch(other, one, "up");
    }

    /// Switches one end of a cable; the kernel tells both ends' states a moment later.
    fn switch(&mut self, one: &str, other: &str, state: &str) {
        self.ip(&format!("link set {one} {state}"));
        let comparison = if state == "up" { "!=" } else { "=" };
        for name in [one, other] {
            let file = format!("/sys/class/net/{name}/operstate");
            self.run(&format!(
                "while [ $(cat {file}) {comparison} up ]; do sleep 0.005; done"
            ));
        }
    }

    /// The namespace's file tree, from outside.
    fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.shell.id()).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.input.take());
        self.shell.wait().unwrap();
    }
}

fn names(topology: &Topology) -> Vec<&str> {
    topology
        .nics
        .iter()
        .filter(|nic| nic.is_up())
        .map(|nic| nic.name.as_str())
        .collect()
}

fn chosen(topology: &Topology, cpu: usize) -> (Choice, String) {
    let me = Process {
        cpus: CpuSet::from_iter([cpu]),
        local: None,
        current_cpu: None,
    };
    let choice = choose(topology, &me, &[], Policy::default());
    let name = choice
        .nic
        .map_or(String::new(), |nic| topology.nics[nic].name.clone());
    (choice, name)
}

#[test]
fn interfaces_come_and_go() {
    let mut namespace = Namespace::new();
    let root = namespace.root();
    let none = Topology::discover(&root).unwrap();
    assert_eq!(names(&none), Vec::<&str>::new());
    assert_eq!(chosen(&none, 0).0.nic, None);
    namespace.cable("cable0", "cable1");
    namespace.cable("cable2", "cable3");
    let four = Topology::discover(&root).unwrap();
    assert_eq!(names(&four), ["cable0", "cable1", "cable2", "cable3"]);
    assert!(four.nics.iter().all(|nic| nic.kind == NicKind::Virtual));
    assert_eq!(chosen(&four, 0).1, "cable0");
    // One end down takes the carrier from the other.
    namespace.switch("cable0", "cable1", "down");
    let two = Topology::discover(&root).unwrap();
    assert_eq!(names(&two), ["cable2", "cable3"]);
    assert_eq!(chosen(&two, 0).1, "cable2");
    namespace.ip("link delete cable2");
    assert_eq!(
        names(&Topology::discover(&root).unwrap()),
        Vec::<&str>::new()
    );
}

/// An interface without carrier of its own says "unknown": the administrator's switch counts.
#[test]
fn dummy_interfaces() {
    let mut namespace = Namespace::new();
    // Kernels built without dummy have ifb, which behaves alike here.
    let added = namespace.run("ip link add quiet0 type dummy || ip link add quiet0 type ifb");
    namespace.ip("link show quiet0 > /dev/null");
    let root = namespace.root();
    assert_eq!(
        names(&Topology::discover(&root).unwrap()),
        Vec::<&str>::new(),
        "{added:?}"
    );
    namespace.ip("link set quiet0 up");
    let state = namespace.run("cat /sys/class/net/quiet0/operstate");
    assert_eq!(state, ["unknown"]);
    assert_eq!(names(&Topology::discover(&root).unwrap()), ["quiet0"]);
}

#[test]
fn the_cache_follows_link_states_and_interfaces() {
    let mut namespace = Namespace::new();
    namespace.cable("cable0", "cable1");
    namespace.cable("cable2", "cable3");
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path()).with_state_age(Duration::ZERO);
    let root = namespace.root();
    let read = || cache.topology(&root).unwrap();
    let (first, source) = read();
    assert_eq!((names(&first).len(), source), (4, Source::Discovered));
    let (second, source) = read();
    assert_eq!((&second, source), (&first, Source::Cached));
    namespace.switch("cable1", "cable0", "down");
    let (third, source) = read();
    assert_eq!(
        (names(&third), source),
        (vec!["cable2", "cable3"], Source::Cached)
    );
    assert_eq!(chosen(&third, 0).1, "cable2");
    assert_eq!(third.nics[0].state, LinkState::Down);
    namespace.switch("cable1", "cable0", "up");
    assert_eq!((names(&read().0).len(), read().1), (4, Source::Cached));
    // Young states are taken as they are; a look at one interface tells.
    namespace.switch("cable1", "cable0", "down");
    let lazy = Cache::new(dir.path()).with_state_age(Duration::MAX);
    let mut young = lazy.topology(&root).unwrap().0;
    assert_eq!(names(&young).len(), 4);
    assert!(!is_up_now(&root, &young.nics[0]) && is_up_now(&root, &young.nics[2]));
    refresh_states(&root, &mut young).unwrap();
    assert_eq!(names(&young), ["cable2", "cable3"]);
    namespace.switch("cable1", "cable0", "up");
    namespace.cable("cable4", "cable5");
    assert_eq!((names(&read().0).len(), read().1), (6, Source::Cached));
    namespace.ip("link delete cable4");
    let (last, source) = read();
    assert_eq!((names(&last).len(), source), (4, Source::Discovered));
}

/// Processes inside the namespace: one holds its place, its interface goes down, the next avoids it.
#[test]
fn an_interface_fails_while_a_process_runs() {
    let mut namespace = Namespace::new();
    namespace.cable("cable0", "cable1");
    namespace.cable("cable2", "cable3");
    namespace.run("unset DAOS_TOPOLOGY_ROOT DAOS_TOPOLOGY_FILE D_INTERFACE OFI_INTERFACE");
    let nic = |lines: &[String]| lines[0].split(' ').nth(2).unwrap().to_owned();
    let before = namespace.run(&format!("taskset -c 0 {PROGRAM}"));
    assert_eq!(nic(&before), "cable0", "{before:?}");
    // A process that keeps its place until the FIFO is closed.
    namespace.run("mkfifo /dev/shm/hold; exec 7<>/dev/shm/hold");
    let start = format!("taskset -c 0 {PROGRAM} --dir /dev/shm --at-once --hold < /dev/shm/hold");
    namespace.run(&format!("{{ {start} > /dev/shm/held 7>&- & }}"));
    let held = namespace.run("until [ -s /dev/shm/held ]; do sleep 0.01; done; cat /dev/shm/held");
    assert_eq!(nic(&held), "cable0", "{held:?}");
    // The next one on the same core: the share of cable0 is taken.
    let second = namespace.run(&format!("taskset -c 0 {PROGRAM}"));
    assert_eq!(nic(&second), "cable1", "{second:?}");
    namespace.switch("cable1", "cable0", "down");
    let third = namespace.run(&format!("taskset -c 0 {PROGRAM}"));
    assert_eq!(nic(&third), "cable2", "{third:?}");
    let user = namespace.run(&format!("D_INTERFACE=cable1 {PROGRAM}"));
    assert!(
        user[0].contains("interface cable1 named by the user is down"),
        "{user:?}"
    );
    let files = namespace.run("ls /dev/shm | grep -c '^daos-topology-'");
    assert_eq!(files, ["1"], "the topology was cached");
    namespace.run("exec 7>&-; wait");
}

/// A container with process numbers of its own may share `/dev/shm`: its jobs are not finished because
/// their processes are not to be seen.
#[test]
fn a_job_in_another_pid_namespace_is_not_swept() {
    let dir = tempfile::tempdir().unwrap();
    let rank = |command: &mut Command, job: &str| {
        command
            .args(["--dir", dir.path().to_str().unwrap(), "--at-once", "--hold"])
            .env("DAOS_TOPOLOGY_FILE", common::recording("aurora.json"))
            .envs([("PALS_LOCAL_RANKID", "0"), ("PALS_LOCAL_SIZE", "1")])
            .env("PALS_APID", job)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is missing: install the package util-linux")
    };
    let said = |child: &mut Child| {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line
    };
    let files = || {
        let names = std::fs::read_dir(dir.path()).unwrap().flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--mount-proc", "--kill-child", PROGRAM]);
    let mut inside = rank(&mut inside, "1");
    let line = said(&mut inside);
    assert!(line.contains("hsn0"), "{line}");
    let first = files();
    assert_eq!(first.len(), 1);
    let mut outside = rank(&mut Command::new(PROGRAM), "2");
    assert!(said(&mut outside).contains("hsn0"));
    let both = files();
    assert!(both.len() == 2 && both.contains(&first[0]), "{both:?}");
    for child in [&mut inside, &mut outside] {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    // A job that has ended is, and so is one of the container's a day later.
    let path = dir.path().join(&first[0]);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    file.set_modified(old).unwrap();
    let mut third = rank(&mut Command::new(PROGRAM), "3");
    assert!(said(&mut third).contains("hsn0"));
    assert_eq!(files().len(), 1);
    drop(third.stdin.take());
    third.wait().unwrap();
}

/// A tree of the user's own is read as it is, whatever was read there, or under the same name
/// elsewhere, before.
#[test]
fn another_root_is_not_cached() {
    let mut namespace = Namespace::new();
    let mut node = recorded("aurora.json");
    let shm = namespace.root().join("dev/shm");
    write_sysfs(&shm.join("one"), &node);
    for nic in &mut node.nics {
        nic.numa = nic.numa.map(|numa| 1 - numa);
    }
    write_sysfs(&shm.join("two"), &node);
    let mut nic = |dir: &str| {
        let said = namespace.run(&format!(
            "cd /dev/shm/{dir} && env -u DAOS_TOPOLOGY_FILE -u D_INTERFACE -u OFI_INTERFACE \
             DAOS_TOPOLOGY_ROOT=. taskset -c 0 {PROGRAM}"
        ));
        said[0].split(' ').nth(2).unwrap().to_owned()
    };
    assert_eq!(nic("one"), "hsn0");
    assert_eq!(nic("two"), "hsn4");
    std::fs::remove_dir_all(shm.join("one")).unwrap();
    std::fs::rename(shm.join("two"), shm.join("one")).unwrap();
    assert_eq!(nic("one"), "hsn4");
}

/// Files planted where the cache will look are not used, and not followed.
#[test]
fn planted_caches_are_not_used() {
    let root = Path::new("/");
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let path = cache.path(root);
    let (truth, _) = cache.topology(root).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut cases: Vec<Vec<u8>> = vec![Vec::new(), b"\n".to_vec(), good[..good.len() - 1].to_vec()];
    for position in (0..good.len()).step_by(7) {
        let mut damaged = good.clone();
        damaged[position] ^= 0x55;
        cases.push(damaged);
    }
    for case in cases {
        std::fs::write(&path, &case).unwrap();
        let (found, source) = cache.topology(root).unwrap();
        assert_eq!(
            (found.nics.len(), source),
            (truth.nics.len(), Source::Discovered)
        );
    }
    assert_eq!(
        cache.topology(root).unwrap().1,
        Source::Cached,
        "repaired by the last"
    );
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    assert_eq!(cache.topology(root).unwrap().1, Source::Discovered);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(
        cache.topology(root).unwrap().1,
        Source::Discovered,
        "writable by others"
    );
    let gone = Cache::new(Path::new("/does/not/exist"));
    assert_eq!(gone.topology(root).unwrap().1, Source::Discovered);
}
