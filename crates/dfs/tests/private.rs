//! Descriptions that a process opens and closes without a transaction, and everybody who has to know of
//! them all the same.

mod support;

use daos_types::ObjectClass;
use dfs::{Dfs, LOCK_EX, LOCK_NB, Ofd};
use engine::testing::audit;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use shm::fault::{self, Action};
use std::io::Write;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Container, File, O_RDONLY, O_RDWR, O_WRONLY, ROOT, fork, go, heard, role, say};
use sys::Errno;

const SYS_EXIT_GROUP: usize = 231;
const BYTES: usize = 100_000;

/// The process keeps the records of `count` descriptions it has closed.
fn keep_records(dfs: &Dfs, count: usize) {
    let open = || File::open(dfs, "kept", O_RDONLY);
    drop((0..count).map(|_| open()).collect::<Vec<_>>());
}

/// Blocks in use once no thread has any in reserve.
fn used(c: &Container) -> u64 {
    c.pool.pool.reap().expect("reap");
    c.pool.pool.leave().expect("leave");
    c.used()
}

/// Once the process is gone.
fn records(dfs: &Dfs) -> u64 {
    dfs.depart().expect("depart");
    audit(dfs.pool()).records
}

/// The eighth word of a description's record says where it is kept, if that is in a place of a process.
fn is_private(dfs: &Dfs, ofd: Ofd) -> bool {
    let at = engine::Rec(ofd.0).offset() + 7 * 8;
    dfs.pool().load(at).expect("record") != 0
}

fn private<'d>(dfs: &'d Dfs, name: &str, flags: u32) -> File<'d> {
    let file = File::open(dfs, name, flags);
    assert!(is_private(dfs, file.ofd), "{name}");
    file
}

/// A file of some blocks and no name, opened privately before it lost that.
fn nameless(dfs: &Dfs) -> File<'_> {
    let file = private(dfs, "nameless", O_RDWR);
    assert_eq!(file.write(&[7; BYTES]), Ok(BYTES));
    dfs.unlink(&ROOT, dfs.root(), b"nameless").expect("unlink");
    file
}

fn wait(child: &Child) -> WaitStatus {
    let pid = Pid::from_raw(child.id() as i32).expect("pid");
    let status = waitpid(Some(pid), WaitOptions::UNTRACED);
    status.expect("wait").expect("a state").1
}

fn exit(failed: bool) -> ! {
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { sys::syscall!(SYS_EXIT_GROUP, usize::from(failed)) }.expect("exit");
    unreachable!("has ended")
}

#[test]
fn the_records_of_closed_descriptions_serve_again() {
    let c = Container::new(ObjectClass::S1, 64);
    keep_records(&c.dfs, 3);
    let before = records(&c.dfs);
    assert!(!is_private(&c.dfs, c.file("kept", O_RDONLY).ofd));
    keep_records(&c.dfs, 3);
    let (a, b) = (private(&c.dfs, "a", O_RDWR), private(&c.dfs, "b", O_WRONLY));
    assert_eq!(a.write(b"abc"), Ok(3));
    let info = c.dfs.ofd_info(a.ofd).expect("info");
    assert_eq!((info.ino, info.flags, info.offset), (a.ino, O_RDWR, 3));
    assert_eq!(c.dfs.ofd_is_held(a.ofd), Ok(true));
    assert_eq!(b.read(&mut [0]), Err(Errno::EBADF));
    let (ofd, generation) = (a.ofd, c.dfs.ofd_generation(a.ofd));
    drop(a);
    assert_eq!(c.dfs.ofd_info(ofd), Err(Errno::EBADF));
    assert_eq!(c.dfs.ofd_release(ofd), Err(Errno::EBADF));
    let again = private(&c.dfs, "a", O_RDONLY);
    assert_eq!(again.ofd, ofd);
    assert_ne!(c.dfs.ofd_generation(ofd), generation);
    assert_eq!(again.write(b"x"), Err(Errno::EBADF));
    let mut bytes = [0; 4];
    assert_eq!(again.read(&mut bytes), Ok(3));
    drop((again, b));
    for name in [b"a", b"b"] {
        c.dfs.unlink(&ROOT, c.dfs.root(), name).expect("unlink");
    }
    assert_eq!(records(&c.dfs), before);
}

#[test]
fn a_file_without_a_name_goes_with_its_last_description() {
    let c = Container::new(ObjectClass::S1, 64);
    keep_records(&c.dfs, 2);
    let before = c.used();
    for other_first in [false, true] {
        let file = nameless(&c.dfs);
        let ino = file.ino;
        assert_eq!(c.dfs.check().expect("check").orphans, 1);
        assert_eq!(c.dfs.reclaim_orphans(), Ok(0));
        let again = c.dfs.open(&ROOT, ino, O_RDONLY).expect("open again");
        let other = File {
            dfs: &c.dfs,
            ino,
            ofd: again,
        };
        let (first, last) = if other_first {
            (other, file)
        } else {
            (file, other)
        };
        drop(first);
        assert_eq!(last.content(), [7; BYTES]);
        drop(last);
        assert_eq!(c.dfs.stat(ino).map(drop), Err(Errno::ESTALE));
        assert_eq!(c.dfs.open(&ROOT, ino, O_RDONLY), Err(Errno::ESTALE));
    }
    assert_eq!(c.used(), before);
    // One that never had a name is there until it is opened.
    let ino = c.dfs.tmpfile(&ROOT, c.dfs.root(), 0o600).expect("make");
    let ofd = c.dfs.open_created(&ROOT, ino, O_RDWR).expect("open");
    c.dfs.ofd_release(ofd).expect("release");
    assert_eq!(c.dfs.stat(ino).map(drop), Err(Errno::ESTALE));
    assert_eq!(c.dfs.check().expect("check").problems.len(), 0);
}

#[test]
fn whoever_else_comes_to_have_it_finds_one_like_any_other() {
    const TEST: &str = "whoever_else_comes_to_have_it_finds_one_like_any_other";
    if let Some((role, dfs)) = role() {
        let ofd = Ofd(role.parse().expect("ofd"));
        dfs.ofd_hold(ofd, false).expect("hold");
        say("held");
        support::wait_for_go();
        let ino = dfs.ofd_info(ofd).expect("info").ino;
        let file = File {
            dfs: &dfs,
            ino,
            ofd,
        };
        assert_eq!(file.content(), [7; BYTES]);
        return;
    }
    let c = Container::new(ObjectClass::S1, 64);
    keep_records(&c.dfs, 3);
    let before = c.used();
    let file = nameless(&c.dfs);
    let mut child = c.spawn(TEST, &file.ofd.0.to_string());
    assert_eq!(heard(&mut child), "held");
    drop(file);
    assert!(c.used() > before);
    go(&mut child);
    assert!(child.wait().expect("wait").success());
    assert_eq!(c.used(), before);

    let (a, b) = (private(&c.dfs, "a", O_RDWR), private(&c.dfs, "a", O_RDWR));
    let lock = |file: &File<'_>| c.dfs.flock(file.ofd, LOCK_EX | LOCK_NB, &|| false);
    assert_eq!(lock(&a), Ok(()));
    assert!(!is_private(&c.dfs, a.ofd));
    assert_eq!(lock(&b), Err(Errno::EAGAIN));
    drop(a);
    assert_eq!(lock(&b), Ok(()));
    drop(b);

    // A new image finds one of what the last one had.
    let kept = private(&c.dfs, "a", O_RDWR);
    let gone = private(&c.dfs, "b", O_RDWR);
    c.dfs.exec_prepare(&[]).expect("prepare");
    c.dfs.exec_leave().expect("leave");
    assert_eq!(engine::process::count(c.dfs.pool()), Ok(1));
    c.dfs.attach_process(&[kept.ofd]).expect("attach");
    assert_eq!(c.dfs.ofd_is_held(kept.ofd), Ok(true));
    assert_eq!(kept.write(b"x"), Ok(1));
    assert_eq!(c.dfs.ofd_info(gone.ofd), Err(Errno::EBADF));
    core::mem::forget(gone);
}

#[test]
fn a_program_is_not_run_while_somebody_may_write_to_it() {
    const TEST: &str = "a_program_is_not_run_while_somebody_may_write_to_it";
    if let Some((_, dfs)) = role() {
        keep_records(&dfs, 1);
        let _writer = private(&dfs, "program", O_WRONLY);
        say("open");
        support::wait_for_go();
        unreachable!("killed while waiting");
    }
    let c = Container::new(ObjectClass::S1, 64);
    keep_records(&c.dfs, 2);
    let writer = private(&c.dfs, "program", O_RDWR);
    let ino = writer.ino;
    assert_eq!(c.dfs.open_program(ino), Err(Errno::ETXTBSY));
    drop(writer);
    let reader = private(&c.dfs, "program", O_RDONLY);
    let program = c.dfs.open_program(ino).expect("run");
    assert_eq!(c.dfs.open(&ROOT, ino, O_RDWR), Err(Errno::ETXTBSY));
    c.dfs.ofd_release(program).expect("release");
    drop(reader);
    let mut child = c.spawn(TEST, "writer");
    assert_eq!(heard(&mut child), "open");
    assert_eq!(c.dfs.open_program(ino), Err(Errno::ETXTBSY));
    child.kill().expect("kill");
    child.wait().expect("wait");
    let program = c.dfs.open_program(ino).expect("its writer is dead");
    c.dfs.ofd_release(program).expect("release");
}

/// What a child does that is stopped or killed at `point`.
fn reach(dfs: &Dfs, point: &'static str, action: Action) {
    if point == "private.parked" {
        fault::arm(point, action, 1);
    }
    keep_records(dfs, 1);
    if point != "private.parked" {
        fault::arm(point, action, 1);
    }
    let open = |ino| dfs.open(&ROOT, ino, O_RDWR);
    let used = dfs.lookup(&ROOT, dfs.root(), b"f").and_then(|ino| {
        dfs.ofd_release(open(ino)?)?;
        let locked = open(ino)?;
        dfs.flock(locked, LOCK_EX | LOCK_NB, &|| false)?;
        dfs.ofd_release(locked)
    });
    // Or it has lost its name meanwhile.
    let is_expected = matches!(used, Ok(()) | Err(Errno::ENOENT | Errno::ESTALE));
    assert!(is_expected, "{used:?}");
}

const POINTS: [&str; 7] = [
    "private.parked",
    "private.opening",
    "private.noted",
    "private.opened",
    "private.claimed",
    "private.closing",
    "private.closed",
];

#[test]
fn killed_or_stopped_on_the_way() {
    const TEST: &str = "killed_or_stopped_on_the_way";
    if let Some((role, dfs)) = role() {
        let (point, action) = role.split_once(' ').expect("role");
        let point = POINTS.into_iter().find(|p| *p == point).expect("point");
        let action = match action {
            "stop" => Action::Stop,
            _ => Action::Kill,
        };
        return reach(&dfs, point, action);
    }
    let c = Container::new(ObjectClass::S1, 64);
    keep_records(&c.dfs, 1);
    let (before, blocks) = (records(&c.dfs), used(&c));
    for point in POINTS {
        for action in ["kill", "stop", "stop and kill"] {
            // Whoever claims it has locks, for which others wait.
            if point == "private.claimed" && action != "kill" {
                continue;
            }
            let case = format!("{point} {action}");
            let f = c.file("f", O_WRONLY);
            assert_eq!(f.write(&[7; BYTES]), Ok(BYTES));
            let ino = f.ino;
            drop(f);
            let role = format!("{point} {}", action.split(' ').next().expect("word"));
            let mut child = c.spawn(TEST, &role);
            let status = wait(&child);
            assert_eq!(status.stopped(), action != "kill", "{case}: {status:?}");
            let start = Instant::now();
            c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
            drop(c.file("other", O_RDWR));
            assert!(start.elapsed() < Duration::from_secs(1), "{case}");
            if action == "stop" {
                let pid = Pid::from_raw(child.id() as i32).expect("pid");
                kill_process(pid, Signal::CONT).expect("continue");
                assert_eq!(wait(&child).exit_status(), Some(0), "{case}");
            } else if action != "kill" {
                child.kill().expect("kill");
                assert_eq!(wait(&child).terminating_signal(), Some(9), "{case}");
            } else {
                assert_eq!(status.terminating_signal(), Some(9), "{case}");
            }
            // Reaped above.
            child.wait().expect_err("gone");
            c.dfs.reap(usize::MAX).expect("reap");
            assert!(c.dfs.stat(ino).is_err(), "{case}: kept for nobody");
            assert_eq!(used(&c), blocks, "{case}");
            c.dfs.unlink(&ROOT, c.dfs.root(), b"other").expect("unlink");
            assert_eq!(records(&c.dfs), before, "{case}");
        }
    }
    assert_eq!(c.dfs.check().expect("check").problems.len(), 0);
}

/// A process dies that had a file open, or was about to, and so does who settles its affairs; by then
/// the file has no name.
#[test]
fn whoever_settles_last_frees_what_the_dead_had() {
    const TEST: &str = "whoever_settles_last_frees_what_the_dead_had";
    let named = std::env::var("PIL4DFS_TEST_ROLE").unwrap_or_default();
    // Already mounting settles what the dead have left.
    if let Some(point) = ["private.closed", "private.settling"]
        .into_iter()
        .find(|p| *p == named)
    {
        fault::arm(point, Action::Kill, 1);
    }
    if let Some((role, dfs)) = role() {
        match POINTS
            .into_iter()
            .find(|point| role == format!("holder {point}"))
        {
            Some(point) => reach(&dfs, point, Action::Stop),
            None => drop(dfs.reap(usize::MAX).expect("reap")),
        }
        return;
    }
    let c = Container::new(ObjectClass::S1, 64);
    keep_records(&c.dfs, 1);
    let (before, blocks) = (records(&c.dfs), used(&c));
    let cases = [
        ("private.opened", "private.closed"),
        ("private.opened", "private.settling"),
        ("private.noted", "private.settling"),
    ];
    for (point, burier) in cases {
        let f = c.file("f", O_WRONLY);
        assert_eq!(f.write(&[7; BYTES]), Ok(BYTES));
        drop(f);
        let mut holder = c.spawn(TEST, &format!("holder {point}"));
        assert!(wait(&holder).stopped(), "{point}");
        c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
        holder.kill().expect("kill");
        holder.wait().expect("wait");
        assert!(c.used() > blocks, "{point}: not kept");
        let mut burier_process = c.spawn(TEST, burier);
        let ended = wait(&burier_process);
        assert_eq!(ended.terminating_signal(), Some(9), "{point} {burier}");
        burier_process.wait().expect_err("gone");
        c.dfs.reap(usize::MAX).expect("reap");
        assert_eq!(used(&c), blocks, "{point} {burier}");
        assert_eq!(records(&c.dfs), before, "{point} {burier}");
    }
}

/// Who frees a file has looked whether it is open, and is about to do it.
fn free_late(dfs: &Dfs) {
    fault::arm("tx.built", Action::Stop, 1);
    dfs.unlink(&ROOT, dfs.root(), b"f").expect("unlink");
}

/// Opens the file meanwhile.
fn open_late(dfs: &Dfs) {
    keep_records(dfs, 1);
    let ino = dfs.lookup(&ROOT, dfs.root(), b"f").expect("lookup");
    say("ready");
    support::wait_for_go();
    match dfs.open(&ROOT, ino, O_RDONLY) {
        Ok(ofd) => {
            support::wait_for_go();
            let file = File { dfs, ino, ofd };
            assert_eq!(file.content(), [7; BYTES]);
        }
        Err(errno) => assert_eq!(errno, Errno::ESTALE),
    }
}

fn what_is_about_to_be_freed_is_not_opened(c: &Container, test: &str) {
    let blocks = used(c);
    drop(c.file("kept", O_RDONLY));
    let f = c.file("f", O_WRONLY);
    assert_eq!(f.write(&[7; BYTES]), Ok(BYTES));
    drop(f);
    let mut opener = c.spawn(test, "opener");
    assert_eq!(heard(&mut opener), "ready");
    let mut remover = c.spawn(test, "remover");
    assert!(wait(&remover).stopped());
    go(&mut opener);
    // As long as it takes to open, if that is possible.
    std::thread::sleep(Duration::from_millis(100));
    let pid = Pid::from_raw(remover.id() as i32).expect("pid");
    kill_process(pid, Signal::CONT).expect("continue");
    assert!(remover.wait().expect("wait").success());
    if let Some(mut waits) = opener.stdin.take() {
        // Or has ended.
        waits.write_all(b"g").unwrap_or_default();
    }
    assert!(opener.wait().expect("wait").success());
    c.dfs.reap(usize::MAX).expect("reap");
    assert_eq!(used(c), blocks);
}

/// Processes open what others replace and remove: whatever they have open is there, whole, and
/// nothing is there in the end.
#[test]
fn opening_races_with_removing() {
    const TEST: &str = "opening_races_with_removing";
    const ROUNDS: usize = 3000;
    if let Some((role, dfs)) = role() {
        match role.as_str() {
            "remover" => return free_late(&dfs),
            "opener" => return open_late(&dfs),
            _ => keep_records(&dfs, 2),
        }
        say("ready");
        support::wait_for_go();
        let mut opened = 0;
        while dfs.lookup(&ROOT, dfs.root(), b"end").is_err() {
            let Ok(ino) = dfs.lookup(&ROOT, dfs.root(), b"f") else {
                continue;
            };
            let Ok(ofd) = dfs.open(&ROOT, ino, O_RDONLY) else {
                continue;
            };
            let file = File {
                dfs: &dfs,
                ino,
                ofd,
            };
            let content = file.content();
            assert!(content.len() == 5000 && content.iter().all(|b| *b == content[0]));
            opened += 1;
        }
        assert!(opened > 10, "{opened}");
        return;
    }
    let c = Container::new(ObjectClass::S1, 64);
    what_is_about_to_be_freed_is_not_opened(&c, TEST);
    let before = used(&c);
    let mut children: Vec<Child> = (0..2).map(|_| c.spawn(TEST, "reader")).collect();
    children
        .iter_mut()
        .for_each(|child| assert_eq!(heard(child), "ready"));
    children.iter_mut().for_each(go);
    for round in 0..ROUNDS {
        let new = c.file("new", O_WRONLY);
        assert_eq!(new.write(&[round as u8; 5000]), Ok(5000));
        drop(new);
        let root = c.dfs.root();
        c.dfs
            .rename(&ROOT, root, b"new", root, b"f", 0)
            .expect("rename");
        if round % 3 == 0 {
            c.dfs.unlink(&ROOT, root, b"f").expect("unlink");
        }
    }
    drop(c.file("end", O_RDONLY));
    for child in &mut children {
        assert!(child.wait().expect("wait").success());
    }
    c.dfs.unlink(&ROOT, c.dfs.root(), b"f").unwrap_or_default();
    let checked = c.dfs.check().expect("check");
    assert_eq!((checked.problems.len(), checked.orphans), (0, 0));
    assert_eq!(used(&c), before);
}

/// A thread opens and closes while another forks: what a child has inherited is its own, and what is
/// opened meanwhile is nobody else's.
#[test]
fn opening_races_with_forking() {
    let c = Container::new(ObjectClass::S1, 64);
    keep_records(&c.dfs, 4);
    let before = used(&c);
    let held = private(&c.dfs, "held", O_RDWR);
    let token = c.dfs.fork_prepare().expect("prepare").expect("held");
    let meanwhile = c.file("meanwhile", O_RDWR);
    for ofd in [held.ofd, meanwhile.ofd] {
        assert!(!is_private(&c.dfs, ofd), "a child may inherit it");
    }
    c.dfs.fork_failed(token).expect("no child");
    drop((held, meanwhile));
    drop(private(&c.dfs, "later", O_RDWR));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            let mut opened = 0;
            while !stop.load(Ordering::Relaxed) {
                let file = File::open(&c.dfs, "opener", O_RDWR);
                assert_eq!(file.pwrite(&[3; 100], 0), Ok(100));
                assert_eq!(c.dfs.ofd_is_held(file.ofd), Ok(true));
                opened += 1;
            }
            opened
        });
        for _ in 0..100 {
            let file = c.file("nameless", O_RDWR);
            assert_eq!(file.write(&[7; BYTES]), Ok(BYTES));
            c.dfs
                .unlink(&ROOT, c.dfs.root(), b"nameless")
                .expect("unlink");
            let token = c.dfs.fork_prepare().expect("prepare").expect("held");
            let pid = fork();
            if pid == 0 {
                let adopted = c.dfs.ofd_adopt_after_fork(token, &[file.ofd]);
                let mut byte = [0];
                let read = file.pread(&mut byte, BYTES as u64 - 1);
                let released = c.dfs.ofd_release(file.ofd);
                exit(adopted.is_err() || read != Ok(1) || byte != [7] || released.is_err());
            }
            drop(file);
            let pid = Pid::from_raw(pid).expect("pid");
            let status = waitpid(Some(pid), WaitOptions::empty()).expect("wait");
            assert_eq!(status.expect("ended").1.exit_status(), Some(0));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(opener.join().expect("opener") > 10);
    });
    c.dfs
        .unlink(&ROOT, c.dfs.root(), b"opener")
        .expect("unlink");
    c.dfs.reap(usize::MAX).expect("reap");
    assert_eq!(used(&c), before);
    let checked = c.dfs.check().expect("check");
    assert_eq!((checked.problems.len(), checked.orphans), (0, 0));
}
