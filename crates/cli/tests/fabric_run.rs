//! `daos fabric run`: what the program gets, and what the user is told.
//!
//! Needs `mpiexec.mpich` and `mpiexec.openmpi` (Debian packages mpich and openmpi-bin).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const DAOS: &str = env!("CARGO_BIN_EXE_daos");
const SHOW: &str = "for name in D_INTERFACE D_DOMAIN OFI_INTERFACE OFI_DOMAIN; do \
                    eval \"echo $name=\\${$name-unset}\"; done";

fn recording(name: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../topology/topologies")
        .join(name);
    file.to_str().unwrap().to_owned()
}

/// A command into which nothing of a surrounding job speaks.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    let foreign = [
        "PALS_",
        "PMI",
        "MPI_",
        "OMPI_",
        "SLURM_",
        "FLUX_",
        "D_",
        "OFI_",
        "DAOS_",
        "LD_PRELOAD",
    ];
    for (name, _) in std::env::vars() {
        if foreign.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A number for a job of its own.
fn job_number() -> String {
    static JOBS: AtomicUsize = AtomicUsize::new(0);
    let number = JOBS.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
}

/// `daos fabric run` on a recording, as a rank of the job.
fn rank(job: &str, rank: usize, size: usize, topology: &str) -> Command {
    let mut command = clean(DAOS);
    command
        .args(["fabric", "run", "--topology", topology])
        .env("PALS_APID", job)
        .env("PALS_LOCAL_RANKID", rank.to_string())
        .env("PALS_LOCAL_SIZE", size.to_string());
    command
}

/// The only rank of a job.
fn alone(topology: &str) -> Command {
    rank(&job_number(), 0, 1, &recording(topology))
}

fn output(command: &mut Command) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(stdout), text(stderr));
    assert!(status.success(), "{status}: {out}{err}");
    (out, err)
}

/// The interface and domain of each rank by `daos fabric plan`; `cpus` as the ranks have them.
fn planned(topology: &str, options: &[&str], cpus: &[String]) -> Vec<(String, String)> {
    let binding = format!("list:{}", cpus.join(":"));
    let ppn = cpus.len().to_string();
    let mut command = clean(DAOS);
    command
        .args(["fabric", "plan", "--json", "--topology", topology])
        .args(["--ppn", &ppn, "--cpu-bind", &binding])
        .args(options);
    let (out, _) = output(&mut command);
    let answer: Value = serde_json::from_str(&out).unwrap();
    let ranks = answer["response"]["ranks"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    ranks
        .iter()
        .map(|rank| (text(&rank["nic"]), text(&rank["domain"])))
        .collect()
}

fn own_cpus() -> String {
    topology::process::allowed_cpus().to_string()
}

#[test]
fn the_program_gets_interface_and_domain() {
    let (nic, domain) = planned(&recording("aurora.json"), &[], &[own_cpus()]).remove(0);
    let both = |interface: &str, domain: &str| {
        ["D", "OFI"]
            .map(|prefix| format!("{prefix}_INTERFACE={interface}\n{prefix}_DOMAIN={domain}\n"))
            .concat()
    };
    let expected = [
        ("aurora.json", both(&nic, &domain)),
        // libfabric's domain of an Ethernet interface is the interface: nothing to say.
        ("vm.json", both("eth0", "unset")),
        ("no-nic.json", both("unset", "unset")),
    ];
    for (topology, expected) in expected {
        let (out, err) = output(alone(topology).args(["sh", "-c", SHOW]));
        assert_eq!((out, err), (expected, String::new()), "{topology}");
    }
}

/// All else is as it was: arguments that look like ours, variables, what is preloaded, the input.
#[test]
fn the_rest_is_unchanged() {
    let script = "cat; echo $FOO \"$LD_PRELOAD\" $0 $*; echo $DAOS_TOPOLOGY_FILE$D_IL_NIC_POLICY";
    let libm = "libm.so.6";
    for separator in [&["--"] as &[&str], &[]] {
        let mut child = alone("vm.json")
            .args(["--policy", "all"])
            .args(separator)
            .args(["sh", "-c", script, "-j", "--json", "--", "a b", "--policy"])
            .env("FOO", "bar")
            .env("LD_PRELOAD", libm)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"input\n").unwrap();
        let out = child.wait_with_output().unwrap().stdout;
        let expected = format!("input\nbar {libm} -j --json -- a b --policy\n\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn the_user_wins_and_is_warned_once() {
    let aurora = recording("aurora.json");
    let run = |topology: &str, number, variables: &[(&str, &str)]| {
        let job = job_number();
        let mut command = rank(&job, number, number + 1, topology);
        command.envs(variables.iter().copied());
        output(command.args(["sh", "-c", SHOW]))
    };
    let (out, err) = run(&aurora, 0, &[("D_INTERFACE", "hsn6")]);
    // DAOS would take hsn6 for the domain.
    let expected = "D_INTERFACE=hsn6\nD_DOMAIN=cxi6\nOFI_INTERFACE=unset\nOFI_DOMAIN=cxi6\n";
    assert_eq!((out.as_str(), err.as_str()), (expected, ""));

    let both = [("D_INTERFACE", "hsn6"), ("D_DOMAIN", "cxi6")];
    let (out, err) = run(&aurora, 0, &both);
    let expected = "D_INTERFACE=hsn6\nD_DOMAIN=cxi6\nOFI_INTERFACE=unset\nOFI_DOMAIN=unset\n";
    assert_eq!((out.as_str(), err.as_str()), (expected, ""));

    let absent = [("D_INTERFACE", "hsn\n99")];
    let (out, err) = run(&aurora, 0, &absent);
    assert!(out.contains("D_DOMAIN=unset"), "{out}");
    let line = err.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "one line: {err}");
    assert!(line.starts_with("WARNING: daos: interface hsn"), "{err}");
    assert!(line.ends_with("is not on this machine; it is used all the same"));

    let dir = tempfile::tempdir().unwrap();
    let down = dir.path().join("down.json");
    let text = std::fs::read_to_string(&aurora).unwrap();
    std::fs::write(&down, text.replace("\"up\"", "\"down\"")).unwrap();
    let (out, err) = run(down.to_str().unwrap(), 0, &[("OFI_INTERFACE", "hsn1")]);
    assert!(out.contains("OFI_INTERFACE=hsn1\nOFI_DOMAIN=cxi1"), "{out}");
    let warning =
        "WARNING: daos: interface hsn1 named by the user is down; it is used all the same\n";
    assert_eq!(err, warning);
    // The other rank of the node does not repeat it.
    let (_, err) = run(&aurora, 1, &absent);
    assert_eq!(err, "");
}

#[test]
fn report_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::write(&log, "what was there\n").unwrap();
    let said = "rank 0 of 1: NIC eth0: the only ethernet interface of socket 0";
    let loads = "rank 0 of 1: processes per NIC on this node: eth0 1";
    let mut command = alone("vm.json");
    command
        .args(["sh", "-c", "echo $$"])
        .env("D_LOG_FILE", &log)
        .env("D_IL_NIC_POLICY", "nearest")
        .env("D_IL_REPORT", "1");
    let (pid, err) = output(&mut command);
    assert_eq!(err, format!("daos: {said}\ndaos: {loads}\n"));
    let text = std::fs::read_to_string(&log).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("what was there"));
    let note = "rank 0 of 1: D_IL_NIC_POLICY ignored: it is \"near\" or \"all\"";
    let mark = format!(" UTC daos[{}] ", pid.trim());
    let logged: Vec<&str> = lines
        .map(|line| line.split_once(&mark).unwrap())
        .map(|(time, line)| {
            assert!(time.starts_with("20") && time.contains(':'), "{time}");
            line
        })
        .collect();
    assert_eq!(logged, [said, loads, note]);
    for off in ["", "0", "false"] {
        let (_, err) = output(alone("vm.json").arg("true").env("D_IL_REPORT", off));
        assert_eq!(err, "");
    }
    let (_, err) = output(alone("no-nic.json").arg("true").env("D_IL_REPORT", "1"));
    let none = "no NIC chosen: this machine has no network interface DAOS could use";
    assert_eq!(err, format!("daos: rank 0 of 1: {none}\n"));
    let (out, err) = output(
        alone("vm.json")
            .args(["echo", "ran"])
            .env("D_LOG_FILE", dir.path()),
    );
    assert_eq!(out, "ran\n");
    let warning = format!(
        "WARNING: daos: D_LOG_FILE {}: Is a directory",
        dir.path().display()
    );
    assert!(
        err.starts_with(&warning) && err.lines().count() == 1,
        "{err}"
    );
}

/// The outcome is the program's own; signals reach it, since it is the same process.
#[test]
fn exit_codes_and_signals_pass_through() {
    for code in [0, 1, 42, 127, 255] {
        let exit = format!("exit {code}");
        let status = alone("vm.json").args(["sh", "-c", &exit]).status().unwrap();
        assert_eq!(status.code(), Some(code));
    }
    let mut child = alone("vm.json")
        .arg("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"running\n")
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "running\n");
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn programs_that_cannot_run() {
    let failure = |arguments: &[&str], code: i32| {
        let output = alone("vm.json").args(arguments).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(output.stdout.is_empty());
        assert!(
            err.starts_with("ERROR: daos: ") && err.lines().count() == 1,
            "{err}"
        );
        err
    };
    let missing = failure(&["no-such-program", "--json"], 127);
    assert!(missing.contains("no-such-program: No such file or directory"));
    failure(&["/no/such/program"], 127);
    let refused = failure(&[&recording("vm.json")], 126);
    assert!(refused.contains("vm.json: Permission denied"), "{refused}");
    failure(&["--", "/tmp"], 126);
    assert!(failure(&[], 1).contains("no program given"));
    assert!(failure(&["--polixy", "all", "true"], 1).contains("unknown flag `polixy'"));
    assert!(failure(&["--policy", "far", "true"], 1).contains("\"far\""));
    let mut bad = clean(DAOS);
    bad.args([
        "fabric",
        "run",
        "--topology",
        "/no/such/file",
        "echo",
        "ran",
    ]);
    let Output { stdout, stderr, .. } = bad.output().unwrap();
    let expected = "ERROR: daos: fabric: /no/such/file: No such file or directory (os error 2)\n";
    assert_eq!(
        (stdout.as_slice(), stderr.as_slice()),
        (&b""[..], expected.as_bytes())
    );
    // Merely in the environment, it does not keep the program from running.
    let mut command = clean(DAOS);
    command
        .args(["fabric", "run", "echo", "ran"])
        .env("DAOS_TOPOLOGY_FILE", "/no/such/file");
    assert_eq!(output(&mut command), ("ran\n".to_owned(), String::new()));
}

/// Programs that end at once, started one after the other: every rank still sees all.
#[test]
fn ranks_wait_for_each_other() {
    let aurora = recording("aurora.json");
    let job = job_number();
    let start = |number| -> Child {
        rank(&job, number, 8, &aurora)
            .args(["--policy", "all", "sh", "-c", "echo $D_INTERFACE $D_DOMAIN"])
            .env("D_IL_REPORT", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<Child> = (0..8).rev().map(start).collect();
    let mut said: Vec<String> = Vec::new();
    for child in children {
        let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
        said.insert(0, String::from_utf8(stdout).unwrap().trim().to_owned());
        let report = String::from_utf8(stderr).unwrap();
        let loads = "hsn0 1, hsn1 1, hsn2 1, hsn3 1, hsn4 1, hsn5 1, hsn6 1, hsn7 1";
        assert!(
            report.contains(&format!("on this node: {loads}\n")),
            "{report}"
        );
    }
    let expected: Vec<String> = planned(&aurora, &["--policy", "all"], &vec![own_cpus(); 8])
        .into_iter()
        .map(|(nic, domain)| format!("{nic} {domain}"))
        .collect();
    assert_eq!(said, expected);
}

/// A rank that never comes is not waited for much longer than a second.
#[test]
fn an_absent_rank_does_not_hang_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let began = Instant::now();
    let mut command = rank(&job_number(), 0, 2, &recording("vm.json"));
    command.args(["sh", "-c", "echo $D_INTERFACE"]);
    let (out, err) = output(command.env("D_LOG_FILE", &log));
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!((out.as_str(), err.as_str()), ("eth0\n", ""));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains("1 of 2 ranks of this node had not joined when this one chose"),
        "{log}"
    );
}

fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .any(|dir| Path::new(dir).join(program).exists())
}

/// 12 real ranks: what their programs see is the plan.
fn real_ranks(mpiexec: &[&str], rank_variable: &str, package: &str) {
    assert!(
        on_path(mpiexec[0]),
        "{} is missing: install {package}",
        mpiexec[0]
    );
    let aurora = recording("aurora.json");
    let script = format!(
        "read -r _ cpus <<end\n$(grep Cpus_allowed_list: /proc/self/status)\nend\n\
         echo ${rank_variable} $D_INTERFACE $D_DOMAIN $cpus"
    );
    for policy in ["near", "all"] {
        let mut command = clean("timeout");
        command
            .args(["--kill-after=5", "100"])
            .args(mpiexec)
            .args(["-n", "12", DAOS, "fabric", "run"])
            .args(["--topology", &aurora, "--policy", policy, "--", "sh", "-c"])
            .arg(&script);
        let (out, err) = output(&mut command);
        let mut ranks: Vec<(usize, (String, String), String)> = Vec::new();
        for line in out.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [rank, nic, domain, cpus] = words[..] else {
                panic!("{out}{err}");
            };
            let nic = (nic.to_owned(), domain.to_owned());
            ranks.push((rank.parse().unwrap(), nic, cpus.to_owned()));
        }
        ranks.sort();
        let numbers = ranks.iter().map(|(rank, ..)| *rank);
        assert_eq!(numbers.collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
        let cpus: Vec<String> = ranks.iter().map(|(.., cpus)| cpus.clone()).collect();
        let chosen: Vec<(String, String)> = ranks.into_iter().map(|(_, nic, _)| nic).collect();
        let expected = planned(&aurora, &["--policy", policy], &cpus);
        assert_eq!(chosen, expected, "{policy}: {out}{err}");
    }
}

#[test]
fn twelve_ranks_of_mpich() {
    real_ranks(&["mpiexec.mpich"], "MPI_LOCALRANKID", "mpich");
}

#[test]
fn twelve_ranks_of_open_mpi() {
    let mpiexec = ["mpiexec.openmpi", "--allow-run-as-root", "--oversubscribe"];
    real_ranks(&mpiexec, "OMPI_COMM_WORLD_LOCAL_RANK", "openmpi-bin");
}
