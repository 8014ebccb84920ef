//! What the kernel says about this process: CPUs it may use, where it runs, its cpuset.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::cpuset::CpuSet;
use crate::launcher::LocalRank;
use crate::plan::Process;
use crate::tree::Tree;

/// CPUs the calling thread may run on: its affinity, which the kernel keeps inside its cgroup's
/// cpuset. Empty if the kernel does not say.
#[must_use]
pub fn allowed_cpus() -> CpuSet {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect(),
        // More CPUs than the fixed-size set of the system call wrapper holds.
        Err(Errno::INVAL) => status_cpus().unwrap_or_default(),
        Err(_) => CpuSet::new(),
    }
}

fn status_cpus() -> Option<CpuSet> {
    let tree = Tree::open(Path::new("/proc")).ok()?;
    let status = tree
        .text("thread-self/status")
        .or_else(|| tree.text("self/status"))?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    CpuSet::parse(list).ok()
}

/// The CPU the calling thread runs on at the moment.
#[must_use]
pub fn current_cpu() -> Option<usize> {
    Some(rustix::thread::sched_getcpu())
}

/// This process as [`crate::plan::choose`] wants it.
#[must_use]
pub fn this_process(local: Option<LocalRank>) -> Process {
    Process {
        cpus: allowed_cpus(),
        local,
        current_cpu: current_cpu(),
    }
}

/// CPUs of the cgroup this process is in, version 2 or 1, with `proc` and `sys` under `root`: where
/// its threads may be moved to, however the launcher has bound it. A group without a cpuset of its
/// own is inside the nearest one above that has one. `None` if there is no cpuset.
#[must_use]
pub fn cgroup_cpus(root: &Path) -> Option<CpuSet> {
    let tree = Tree::open(root).ok()?;
    let groups = tree.text("proc/self/cgroup").or_else(|| {
        // "self" is a link the kernel makes up; under it only the process's own number resolves.
        tree.text(&format!(
            "proc/{}/cgroup",
            rustix::process::getpid().as_raw_nonzero()
        ))
    })?;
    let group = |controller: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            controllers
                .split(',')
                .any(|c| c == controller)
                .then(|| path.trim_matches('/'))
        })
    };
    let files_1: &[&str] = &["cpuset.effective_cpus", "cpuset.cpus"];
    let files_2: &[&str] = &["cpuset.cpus.effective"];
    let version_1 = group("cpuset").map(|path| ("sys/fs/cgroup/cpuset", path, files_1));
    let version_2 = group("").map(|path| ("sys/fs/cgroup", path, files_2));
    version_1
        .into_iter()
        .chain(version_2)
        .find_map(|(base, path, files)| {
            let above = path
                .rmatch_indices('/')
                .filter_map(|(end, _)| path.get(..end));
            let mut groups = [path].into_iter().chain(above).chain([""]);
            groups.find_map(|group| {
                files.iter().find_map(|file| {
                    let list = tree.text(&format!("{base}/{group}/{file}"))?;
                    CpuSet::parse(&list).ok().filter(|set| !set.is_empty())
                })
            })
        })
}

/// Launchers' processes on each node that give their ranks no number of the job (proc_pid_comm(5)).
const DAEMONS: [&str; 3] = ["hydra_pmi_proxy", "pmi_proxy", "mpispawn"];
/// Shells and wrapper scripts between such a process and its ranks.
const ANCESTORS_MAX: usize = 8;

/// Names the job of a rank by its launcher's process on this node, for launchers that set no variable.
#[must_use]
pub fn launcher_daemon() -> Option<String> {
    let mut pid = rustix::process::getppid()?;
    for _ in 0..ANCESTORS_MAX {
        let stat = Stat::of(pid)?;
        if DAEMONS.contains(&stat.command.as_str()) {
            let number = pid.as_raw_pid();
            return Some(format!("{}:{number}:{}", stat.command, stat.start_ticks));
        }
        pid = stat.parent?;
    }
    None
}

/// What proc_pid_stat(5) says about a process.
pub(crate) struct Stat {
    command: String,
    parent: Option<Pid>,
    /// A zombie, or just going.
    pub(crate) is_dead: bool,
    /// When it started, in clock ticks since boot: with the number, tells processes apart.
    pub(crate) start_ticks: u64,
}

impl Stat {
    pub(crate) fn of(pid: Pid) -> Option<Stat> {
        let text = std::fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The command may hold blanks and brackets.
        let (front, fields) = text.rsplit_once(") ")?;
        let (_, command) = front.split_once(" (")?;
        let mut fields = fields.split(' ');
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let parent = Pid::from_raw(fields.next()?.parse().ok()?);
        // Field 22, counted from the fourth.
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Stat {
            command: command.to_owned(),
            parent,
            is_dead,
            start_ticks,
        })
    }
}
