//! A pool on a real file system that is full: writers of several processes are told so and nothing
//! else, what was there stays, and they go on when there is space again. Needs the right to mount.

mod support;

use engine::testing::{TempPool, audit, audit_blocks};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use support::{Container, File, ROOT, classes, go, heard, role, say, wait_for_go};
use sys::Errno;

const RDWR: u32 = 2;
const MIB: u64 = 1 << 20;

/// A file system of a fixed size.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` without the right to mount.
    fn new(mib: u64) -> Option<Mounted> {
        let dir = std::env::temp_dir().join(format!("pil4dfs-full-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).expect("directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(&dir)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Mounted(dir));
        }
        std::fs::remove_dir(&dir).expect("directory");
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount");
        eprintln!("skipped: only root can mount");
        None
    }

    /// Takes all space that is left but for `bytes`.
    fn fill(&self, bytes: u64) -> PathBuf {
        let stat = rustix::fs::statvfs(&self.0).expect("statvfs");
        let free = stat.f_bfree * stat.f_frsize;
        let path = self.0.join("other");
        let file = std::fs::File::create(&path).expect("file");
        let flags = rustix::fs::FallocateFlags::empty();
        let len = free.checked_sub(bytes).expect("that much");
        rustix::fs::fallocate(&file, flags, 0, len).expect("space");
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let away = Command::new("umount").arg("--lazy").arg(&self.0).status();
        std::fs::remove_dir(&self.0).unwrap_or_default();
        if !std::thread::panicking() {
            assert!(away.expect("umount").success());
        }
    }
}

fn container(dir: &Path, class: &str, log: u64) -> Container {
    let pool = TempPool::with_log(dir, 2, 400, log);
    let classes = classes();
    let (_, class) = *classes
        .iter()
        .find(|(name, _)| *name == class)
        .expect("class");
    Container::in_pool(&Rc::new(pool), "c", class)
}

fn whole(c: Container) {
    let checked = c.dfs.check_with(true, &mut |_| ()).expect("check");
    assert_eq!(checked.problems, []);
    let pool = c.pool.pool;
    pool.leave().expect("leave");
    audit(pool);
    audit_blocks(pool);
}

/// Writes until there is no space; what was written.
fn write_until_full(file: &File<'_>, byte: u8) -> u64 {
    let mut pos = 0;
    loop {
        match file.pwrite(&vec![byte; MIB as usize], pos) {
            Ok(written) => pos += written as u64,
            Err(errno) => {
                assert_eq!(errno, Errno::ENOSPC);
                return pos;
            }
        }
    }
}

#[test]
fn a_file_system_that_is_almost_full_gives_what_it_has() {
    let Some(disk) = Mounted::new(32) else { return };
    // Ranks would grow by 50 MiB.
    let c = container(&disk.0, "RP_2GX", MIB);
    let file = c.file("f", RDWR);
    let written = write_until_full(&file, 3);
    assert!(written > 10 * MIB, "{written}");
    assert!(file.content().iter().all(|byte| *byte == 3));
    c.dfs.sync().expect("sync");
    drop(file);
    whole(c);
}

/// One of the writers: makes files of its own, over and over, as long as it is let.
#[test]
fn writer() {
    let Some((role, dfs)) = role() else { return };
    let number: u8 = role.parse().expect("number");
    let mut full = 0;
    let mut keep = Vec::new();
    for round in 0.. {
        let name = format!("w{number}-{round}");
        let content = vec![number; 200_000];
        let made = dfs.create(&ROOT, dfs.root(), name.as_bytes(), 0o644, true);
        let written = made.and_then(|(ino, _)| {
            let ofd = dfs.open(&ROOT, ino, RDWR)?;
            let file = File {
                dfs: &dfs,
                ino,
                ofd,
            };
            let mut done = 0;
            while done < content.len() {
                done += file.pwrite(&content[done..], done as u64)?;
            }
            dfs.fsync(ofd)
        });
        match written {
            Ok(()) => keep.push(name),
            Err(errno) => {
                assert_eq!(errno, Errno::ENOSPC, "{name}");
                // What is there of it can be removed.
                let removed = dfs.unlink(&ROOT, dfs.root(), name.as_bytes());
                assert!(
                    matches!(removed, Ok(()) | Err(Errno::ENOENT)),
                    "{name}: {removed:?}"
                );
                full += 1;
                if full == 20 {
                    say("full");
                    wait_for_go();
                    keep.clear();
                }
            }
        }
        if full >= 20 && keep.len() == 10 {
            break;
        }
    }
    say("written");
    dfs.depart().expect("depart");
}

#[test]
fn writers_go_on_when_there_is_space_again() {
    let Some(disk) = Mounted::new(64) else { return };
    let c = container(&disk.0, "RP_2GX", MIB);
    let other = disk.fill(24 * MIB);
    let before = c.file("before", RDWR);
    assert_eq!(before.pwrite(&[7; 100_000], 0), Ok(100_000));
    let mut writers: Vec<_> = (1..=3)
        .map(|number| c.spawn("writer", &format!("{number}")))
        .collect();
    for writer in &mut writers {
        assert_eq!(heard(writer), "full");
    }
    assert_eq!(before.content(), [7; 100_000]);
    assert!(before.pwrite(&[8; 10], 0).is_ok_and(|wrote| wrote == 10) || before.size() == 100_000);
    c.dfs.sync().expect("sync");
    std::fs::remove_file(other).expect("other");
    for writer in &mut writers {
        go(writer);
        assert_eq!(heard(writer), "written");
    }
    for mut writer in writers {
        assert!(writer.wait().expect("writer").success());
    }
    let root = c.dfs.root();
    for number in 1..=3u8 {
        let mut found = 0;
        for round in 0..10_000 {
            let name = format!("w{number}-{round}");
            let Ok(ino) = c.dfs.lookup(&ROOT, root, name.as_bytes()) else {
                continue;
            };
            let ofd = c.dfs.open(&ROOT, ino, RDWR).expect("open");
            let file = File {
                dfs: &c.dfs,
                ino,
                ofd,
            };
            assert_eq!(file.content(), vec![number; 200_000], "{name}");
            drop(file);
            c.dfs.unlink(&ROOT, root, name.as_bytes()).expect("unlink");
            found += 1;
        }
        assert!(found >= 10, "{found} files of {number}");
    }
    drop(before);
    whole(c);
}

#[test]
fn a_full_file_system_is_emptied_and_filled_again() {
    let Some(disk) = Mounted::new(64) else { return };
    let c = container(&disk.0, "RP_2GX", MIB);
    let root = c.dfs.root();
    let make = |name: &str| {
        let (ino, _) = c.dfs.create(&ROOT, root, name.as_bytes(), 0o644, true)?;
        let file = File {
            dfs: &c.dfs,
            ino,
            ofd: c.dfs.open(&ROOT, ino, RDWR)?,
        };
        let written = file.pwrite(&vec![5; MIB as usize / 4], 0)?;
        Ok::<_, Errno>(written as u64)
    };
    let mut first = 0;
    for lap in 0..3 {
        let mut names = Vec::new();
        let mut total = 0;
        let refused = loop {
            names.push(format!("{lap}-{}", names.len()));
            match make(&names[names.len() - 1]) {
                Ok(written) => total += written,
                Err(errno) => break errno,
            }
            assert!(names.len() < 1000);
        };
        assert_eq!(refused, Errno::ENOSPC);
        if lap == 0 {
            first = total;
        }
        assert!(total > 10 * MIB && total >= first / 4 * 3, "{lap}: {total}");
        if c.dfs
            .lookup(&ROOT, root, names[names.len() - 1].as_bytes())
            .is_err()
        {
            names.pop();
        }
        // Many logs' worth of changes that need no more space for data.
        for i in 0..100_000 {
            let name = names[i % names.len()].as_bytes();
            let moved = c.dfs.rename(&ROOT, root, name, root, b"elsewhere", 0);
            moved.unwrap_or_else(|errno| panic!("{lap}, {i}: {errno}"));
            let back = c.dfs.rename(&ROOT, root, b"elsewhere", root, name, 0);
            back.unwrap_or_else(|errno| panic!("{lap}, {i}: {errno}"));
        }
        for name in names {
            c.dfs.unlink(&ROOT, root, name.as_bytes()).expect("unlink");
        }
    }
    whole(c);
}

#[test]
fn a_log_that_has_no_space_to_be_emptied_into_takes_what_it_can() {
    let Some(disk) = Mounted::new(24) else { return };
    let c = container(&disk.0, "RP_2GX", MIB);
    let other = disk.fill(0);
    let root = c.dfs.root();
    // Few stay, so that the directory remains small.
    let turn = |name: &str, stays: bool| {
        c.dfs.create(&ROOT, root, name.as_bytes(), 0o644, true)?;
        match stays {
            true => Ok(()),
            false => c.dfs.unlink(&ROOT, root, name.as_bytes()),
        }
    };
    let mut made = 0;
    let refused = loop {
        match turn(&format!("f{made}"), made % 40 == 0) {
            Ok(()) => made += 1,
            Err(errno) => break errno,
        }
        assert!(made < 100_000);
    };
    assert_eq!(refused, Errno::ENOSPC);
    assert!(made > 100, "{made}");
    for i in 0..100 {
        let again = turn(&format!("again{i}"), false);
        assert!(matches!(again, Ok(()) | Err(Errno::ENOSPC)), "{again:?}");
    }
    // What is there can be opened, closed and removed all the same.
    for name in (0..made).step_by(40).map(|i| format!("f{i}")) {
        let ino = c.dfs.lookup(&ROOT, root, name.as_bytes()).expect("lookup");
        let ofd = c.dfs.open(&ROOT, ino, RDWR).expect("open");
        c.dfs.ofd_release(ofd).expect("release");
        c.dfs.unlink(&ROOT, root, name.as_bytes()).expect("unlink");
    }
    std::fs::remove_file(other).expect("other");
    for i in 0..2000 {
        turn(&format!("g{i}"), i % 100 == 0).expect("space again");
    }
    c.dfs.sync().expect("sync");
    whole(c);
}
