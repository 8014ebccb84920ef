//! Open file descriptions shared by processes, handed over, and let go by the dead.

mod support;

use daos_types::ObjectClass;
use dfs::Ofd;
use rustix::process::WaitOptions;
use std::process::Child;
use support::{
    Container, File, O_APPEND, O_RDONLY, O_RDWR, O_WRONLY, ROOT, fork, go, heard, role, say,
    wait_for_go,
};
use sys::Errno;

const SYS_EXIT_GROUP: usize = 231;
const RECORDS: usize = 3000;
const RECORD: usize = 24;

fn record(who: u32, number: usize) -> [u8; RECORD] {
    let mut bytes = [b' '; RECORD];
    let text = format!("{who:04} {number:08} ........\n");
    bytes[RECORD - text.len()..].copy_from_slice(text.as_bytes());
    bytes
}

/// All records of all writers are there, whole, each writer's in order.
fn check_records(bytes: &[u8], writers: u32) {
    assert_eq!(bytes.len(), writers as usize * RECORDS * RECORD);
    let mut next = vec![0usize; writers as usize];
    for found in bytes.chunks(RECORD) {
        let text = core::str::from_utf8(found).expect("text");
        let who: u32 = text
            .trim_start()
            .split(' ')
            .next()
            .expect("who")
            .parse()
            .expect("number");
        assert_eq!(found, record(who, next[who as usize]));
        next[who as usize] += 1;
    }
    assert!(next.iter().all(|n| *n == RECORDS));
}

#[test]
fn writers_that_share_an_offset_never_overlap() {
    if let Some((role, dfs)) = role() {
        let (who, ofd) = role.split_once(' ').expect("role");
        let ofd = Ofd(ofd.parse().expect("ofd"));
        dfs.ofd_hold(ofd, false).expect("hold");
        say("ready");
        wait_for_go();
        let f = File {
            dfs: &dfs,
            ino: dfs.ofd_info(ofd).expect("info").ino,
            ofd,
        };
        for number in 0..RECORDS {
            assert_eq!(
                f.write(&record(who.parse().expect("who"), number)),
                Ok(RECORD)
            );
        }
        return;
    }
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    let mut children: Vec<Child> = (0..3)
        .map(|who| {
            let role = format!("{who} {}", f.ofd.0);
            c.spawn("writers_that_share_an_offset_never_overlap", &role)
        })
        .collect();
    children
        .iter_mut()
        .for_each(|child| assert_eq!(heard(child), "ready"));
    children.iter_mut().for_each(go);
    children
        .iter_mut()
        .for_each(|child| assert!(child.wait().expect("wait").success()));
    check_records(&f.content(), 3);
    assert_eq!(
        c.dfs.ofd_info(f.ofd).expect("info").offset as usize,
        3 * RECORDS * RECORD
    );
}

#[test]
fn appends_of_many_processes_lose_nothing() {
    if let Some((role, dfs)) = role() {
        let f = File::open(&dfs, "log", O_WRONLY | O_APPEND);
        say("ready");
        wait_for_go();
        for number in 0..RECORDS {
            let written = f.write(&record(role.parse().expect("who"), number));
            assert_eq!(written, Ok(RECORD));
        }
        return;
    }
    for c in support::containers(256) {
        let f = c.file("log", O_RDONLY);
        let test = "appends_of_many_processes_lose_nothing";
        let mut children: Vec<Child> = (0..4).map(|who| c.spawn(test, &who.to_string())).collect();
        children
            .iter_mut()
            .for_each(|child| assert_eq!(heard(child), "ready"));
        children.iter_mut().for_each(go);
        children
            .iter_mut()
            .for_each(|child| assert!(child.wait().expect("wait").success()));
        check_records(&f.content(), 4);
    }
}

#[test]
fn what_the_dead_had_open_is_let_go() {
    if let Some((_, dfs)) = role() {
        let f = File::open(&dfs, "f", O_RDWR);
        assert_eq!(f.write(&[7; 100_000]), Ok(100_000));
        say("ready");
        wait_for_go();
        unreachable!("killed while waiting");
    }
    let c = Container::new(ObjectClass::S1, 64);
    c.pool.pool.leave().expect("leave");
    let before = c.used();
    let mut child = c.spawn("what_the_dead_had_open_is_let_go", "x");
    assert_eq!(heard(&mut child), "ready");
    let ino = c.dfs.lookup(&ROOT, c.dfs.root(), b"f").expect("lookup");
    c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
    assert_eq!(c.dfs.reap(usize::MAX), Ok(0));
    assert_eq!(c.dfs.stat(ino).map(|s| s.size), Ok(100_000));
    child.kill().expect("kill");
    // Not waited for: a zombie holds nothing.
    let mut reaped = 0;
    for _ in 0..200 {
        reaped += c.dfs.reap(usize::MAX).expect("reap");
        if reaped > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(reaped, 1);
    assert!(c.dfs.stat(ino).is_err());
    child.wait().expect("wait");
    c.pool.pool.reap().expect("reap");
    c.pool.pool.leave().expect("leave");
    assert_eq!(c.used(), before);
}

#[test]
fn an_unlinked_file_lives_until_its_last_close() {
    let c = Container::new(ObjectClass::SX, 64);
    let a = c.file("f", O_RDWR);
    a.write(b"still here").expect("write");
    let b = c.file("f", O_RDONLY);
    c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
    drop(a);
    assert_eq!(b.content(), b"still here");
    let ino = b.ino;
    assert_eq!(c.dfs.stat(ino).map(|s| s.nlink), Ok(0));
    drop(b);
    assert!(c.dfs.stat(ino).is_err());
}

#[test]
fn a_forked_child_holds_what_its_parent_closes_at_once() {
    let c = Container::new(ObjectClass::S1, 64);
    for _ in 0..50 {
        let f = c.file("f", O_RDWR);
        let (ofd, ino) = (f.ofd, f.ino);
        let token = c.dfs.fork_prepare().expect("prepare").expect("held");
        let pid = fork();
        if pid == 0 {
            let adopted = c.dfs.ofd_adopt_after_fork(token, &[ofd]);
            let wrote = f.write(b"child");
            let released = c.dfs.ofd_release(ofd);
            let code = [adopted.is_err(), wrote.is_err(), released.is_err()];
            let code = code.iter().position(|failed| *failed).map_or(0, |i| i + 1);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { sys::syscall!(SYS_EXIT_GROUP, code) }.expect("exit");
        }
        drop(f);
        let pid = rustix::process::Pid::from_raw(pid).expect("pid");
        let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::empty())
            .expect("wait")
            .expect("ended");
        assert_eq!(status.exit_status(), Some(0));
        assert_eq!(c.file("f", O_RDONLY).content(), b"child");
        c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
        assert!(c.dfs.stat(ino).is_err(), "nobody holds the file any more");
    }
}

#[test]
fn a_new_image_keeps_what_it_finds() {
    let c = Container::new(ObjectClass::S1, 64);
    let kept = c.file("kept", O_RDWR);
    let gone = c.file("gone", O_RDWR);
    c.dfs.exec_prepare(&[kept.ofd]).expect("prepare");
    c.dfs.attach_process(&[kept.ofd]).expect("attach");
    assert_eq!(c.dfs.ofd_is_held(kept.ofd), Ok(true));
    assert_eq!(kept.write(b"x"), Ok(1));
    assert_eq!(c.dfs.ofd_info(gone.ofd), Err(Errno::EBADF));
    core::mem::forget(gone);
    // Neither a new image nor the end of the process takes anything away that a child may come for.
    let f = c.file("f", O_RDWR);
    let token = c.dfs.fork_prepare().expect("prepare").expect("held");
    c.dfs.depart().expect("depart");
    assert_eq!(c.dfs.reap(usize::MAX), Ok(0));
    assert_eq!(f.write(b"child"), Ok(5));
    c.dfs.attach_process(&[]).expect("attach");
    assert_eq!(f.write(b"child"), Ok(5));
    c.dfs.fork_failed(token).expect("none left");
    assert_eq!(c.dfs.ofd_info(f.ofd), Err(Errno::EBADF));
    core::mem::forget((f, kept));
}

/// A child lets what its parent has closed go, and is stopped before it does: when it goes on, somebody
/// else has done it, and the number is that of a file the parent has opened since.
#[test]
fn what_is_let_go_late_is_not_somebody_elses() {
    let c = Container::new(ObjectClass::S1, 64);
    let kept = c.file("kept", O_RDWR);
    let f = c.file("closed", O_RDWR);
    let closed = f.ofd;
    let token = c.dfs.fork_prepare().expect("prepare").expect("held");
    drop(f);
    let pid = fork();
    if pid == 0 {
        shm::fault::arm("holds.deferred", shm::fault::Action::Stop, 1);
        let code = usize::from(c.dfs.ofd_adopt_after_fork(token, &[]).is_err());
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { sys::syscall!(SYS_EXIT_GROUP, code) }.expect("exit");
    }
    let pid = rustix::process::Pid::from_raw(pid).expect("pid");
    let wait = |options| {
        let ended = rustix::process::waitpid(Some(pid), options).expect("wait");
        ended.expect("changed").1
    };
    assert!(wait(WaitOptions::UNTRACED).stopped());
    let token = c.dfs.fork_prepare().expect("prepare").expect("held");
    c.dfs.fork_failed(token).expect("let go");
    assert_eq!(c.dfs.ofd_info(closed), Err(Errno::EBADF));
    let opened = c.file("opened", O_RDWR);
    assert_eq!(opened.ofd, closed, "this test needs the number again");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("continue");
    assert_eq!(wait(WaitOptions::empty()).exit_status(), Some(0));
    assert_eq!(c.dfs.ofd_is_held(opened.ofd), Ok(true));
    assert_eq!(opened.write(b"x"), Ok(1));
    drop(kept);
}

/// Whoever settles a dead process's affairs may die of it; until then nobody else does.
#[test]
fn a_dead_process_whose_burier_died_is_buried() {
    if std::env::var("PIL4DFS_TEST_ROLE").is_ok_and(|role| role == "burier") {
        // Already mounting settles what the dead have left.
        shm::fault::arm("process.burying", shm::fault::Action::Kill, 1);
    }
    if let Some((role, dfs)) = role() {
        if role == "holder" {
            let f = File::open(&dfs, "f", O_RDWR);
            dfs.unlink(&ROOT, dfs.root(), b"f").expect("unlink");
            assert_eq!(f.write(&[7; 100_000]), Ok(100_000));
            say("ready");
            wait_for_go();
        }
        dfs.reap(usize::MAX).expect("reap");
        return;
    }
    let container = Container::new(ObjectClass::S1, 64);
    let before = container.used();
    let test = "a_dead_process_whose_burier_died_is_buried";
    let mut holder = container.spawn(test, "holder");
    assert_eq!(heard(&mut holder), "ready");
    assert!(container.used() > before);
    holder.kill().expect("kill");
    holder.wait().expect("wait");
    let mut burier = container.spawn(test, "burier");
    let ended = burier.wait().expect("wait");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(9)
    );
    assert!(container.used() > before);
    assert!(container.dfs.reap(usize::MAX).expect("reap") > 0);
    assert_eq!(container.dfs.reap(usize::MAX), Ok(0));
    assert_eq!(container.used(), before);
}
