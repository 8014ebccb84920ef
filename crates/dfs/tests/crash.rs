//! A writer stopped at any word of any change: readers go on and miss nothing that exists before
//! and after it. Killed there: the change has happened or has not. The test program starts itself
//! as the writer.

mod common;

use common::{Container, ROOT};
use dfs::{Cred, Dfs, DirCursor, How, Ino, Walk};
use shm::fault::{self, Action};
use std::collections::BTreeMap;
use std::process::{Command, ExitStatus};
use sys::{Errno, Result};

const JOB: &str = "PIL4DFS_TEST_CRASH";

/// A change and the state it is made in.
struct Case {
    name: &'static str,
    prepare: fn(&Dfs, Ino) -> Result<()>,
    run: fn(&Dfs, Ino) -> Result<()>,
}

/// Adds `count` files.
fn fill(dfs: &Dfs, dir: Ino, count: usize) -> Result<()> {
    for i in 0..count {
        dfs.create(&ROOT, dir, format!("fill{i}").as_bytes(), 0o644, true)?;
    }
    Ok(())
}

/// Two directories, files, and a link between them.
fn usual(dfs: &Dfs, root: Ino) -> Result<()> {
    let a = dfs.mkdir(&ROOT, root, b"a", 0o755)?;
    let b = dfs.mkdir(&ROOT, root, b"b", 0o755)?;
    let (f, _) = dfs.create(&ROOT, a, b"f", 0o644, true)?;
    dfs.create(&ROOT, b, b"g", 0o600, true)?;
    dfs.link(&ROOT, f, b, b"f2")?;
    dfs.mkdir(&ROOT, a, b"sub", 0o700)?;
    dfs.mkdir(&ROOT, b, b"empty", 0o711)?;
    Ok(())
}

fn at(dfs: &Dfs, dir: Ino, name: &str) -> Result<Ino> {
    dfs.lookup(&ROOT, dir, name.as_bytes())
}

/// A rename between the directories of [`usual`].
fn moved(dfs: &Dfs, root: Ino, from: &str, to: &str, flags: u32) -> Result<()> {
    let (a, b) = (at(dfs, root, "a")?, at(dfs, root, "b")?);
    dfs.rename(&ROOT, a, from.as_bytes(), b, to.as_bytes(), flags)
}

/// [`usual`] with links that lead to the same from both directories.
fn with_links(dfs: &Dfs, root: Ino) -> Result<()> {
    usual(dfs, root)?;
    let (a, b) = (at(dfs, root, "a")?, at(dfs, root, "b")?);
    dfs.symlink(&ROOT, b"../a/f", a, b"to-f")?;
    dfs.symlink(&ROOT, b"../b/g", b, b"to-g")?;
    dfs.symlink(&ROOT, b"../b/empty", b, b"to-empty").map(drop)
}

const CASES: &[Case] = &[
    Case {
        name: "create in an empty directory",
        prepare: |_, _| Ok(()),
        run: |dfs, root| dfs.create(&ROOT, root, b"new", 0o644, true).map(drop),
    },
    Case {
        name: "create beside others",
        prepare: usual,
        run: |dfs, root| dfs.create(&ROOT, root, b"new", 0o644, true).map(drop),
    },
    Case {
        name: "create where a page and a table are wanted",
        prepare: |dfs, root| fill(dfs, root, 15),
        run: |dfs, root| dfs.create(&ROOT, root, &[b'n'; 200], 0o644, true).map(drop),
    },
    Case {
        name: "create where a bigger table is wanted",
        prepare: |dfs, root| fill(dfs, root, 256),
        run: |dfs, root| dfs.create(&ROOT, root, b"new", 0o644, true).map(drop),
    },
    Case {
        name: "mkdir",
        prepare: usual,
        run: |dfs, root| dfs.mkdir(&ROOT, root, b"new", 0o755).map(drop),
    },
    Case {
        name: "symlink with a page",
        prepare: usual,
        run: |dfs, root| dfs.symlink(&ROOT, &[b't'; 2000], root, b"new").map(drop),
    },
    Case {
        name: "link",
        prepare: usual,
        run: |dfs, root| {
            let f = at(dfs, at(dfs, root, "a")?, "f")?;
            dfs.link(&ROOT, f, root, b"f3")
        },
    },
    Case {
        name: "unlink one of two names",
        prepare: usual,
        run: |dfs, root| dfs.unlink(&ROOT, at(dfs, root, "a")?, b"f"),
    },
    Case {
        name: "unlink the last name",
        prepare: |dfs, root| {
            usual(dfs, root)?;
            let g = at(dfs, at(dfs, root, "b")?, "g")?;
            dfs.setxattr(&ROOT, g, b"user.x", &[1; 9000], 0)
        },
        run: |dfs, root| dfs.unlink(&ROOT, at(dfs, root, "b")?, b"g"),
    },
    Case {
        name: "unlink the last entry of a page",
        prepare: |dfs, root| {
            fill(dfs, root, 140)?;
            (15..77).try_for_each(|i| dfs.unlink(&ROOT, root, format!("fill{i}").as_bytes()))
        },
        run: |dfs, root| dfs.unlink(&ROOT, root, b"fill77"),
    },
    Case {
        name: "rmdir",
        prepare: usual,
        run: |dfs, root| dfs.rmdir(&ROOT, at(dfs, root, "b")?, b"empty"),
    },
    Case {
        name: "rename in a directory",
        prepare: usual,
        run: |dfs, root| {
            let a = at(dfs, root, "a")?;
            dfs.rename(&ROOT, a, b"f", a, b"other", 0)
        },
    },
    Case {
        name: "rename to another directory",
        prepare: usual,
        run: |dfs, root| moved(dfs, root, "f", "other", 0),
    },
    Case {
        name: "rename over a file",
        prepare: usual,
        run: |dfs, root| moved(dfs, root, "f", "g", 0),
    },
    Case {
        name: "rename a directory",
        prepare: usual,
        run: |dfs, root| moved(dfs, root, "sub", "other", 0),
    },
    Case {
        name: "rename a directory over an empty one",
        prepare: usual,
        run: |dfs, root| moved(dfs, root, "sub", "empty", 0),
    },
    Case {
        name: "exchange",
        prepare: usual,
        run: |dfs, root| moved(dfs, root, "sub", "g", 2),
    },
    Case {
        name: "rename a file over a link",
        prepare: with_links,
        run: |dfs, root| moved(dfs, root, "f", "to-g", 0),
    },
    Case {
        name: "rename a link over a file",
        prepare: with_links,
        run: |dfs, root| moved(dfs, root, "to-f", "g", 0),
    },
    Case {
        name: "exchange a link to a file and a directory",
        prepare: with_links,
        run: |dfs, root| moved(dfs, root, "to-f", "empty", 2),
    },
    Case {
        name: "exchange a directory and a link to another",
        prepare: with_links,
        run: |dfs, root| moved(dfs, root, "sub", "to-empty", 2),
    },
    Case {
        name: "whiteout",
        prepare: usual,
        run: |dfs, root| moved(dfs, root, "f", "other", 4),
    },
    Case {
        name: "setxattr, replacing",
        prepare: |dfs, root| dfs.setxattr(&ROOT, root, b"user.x", b"old", 0),
        run: |dfs, root| dfs.setxattr(&ROOT, root, b"user.x", &[3; 3000], 0),
    },
    Case {
        name: "setxattr in two transactions",
        prepare: |dfs, root| dfs.setxattr(&ROOT, root, b"user.x", &[2; 100], 0),
        run: |dfs, root| dfs.setxattr(&ROOT, root, b"user.x", &[3; 50_000], 0),
    },
    Case {
        name: "chmod",
        prepare: usual,
        run: |dfs, root| dfs.chmod(&ROOT, at(dfs, root, "a")?, 0o2751),
    },
    Case {
        name: "chmod that forbids to search",
        prepare: usual,
        run: |dfs, root| dfs.chmod(&ROOT, at(dfs, root, "a")?, 0o700),
    },
    Case {
        name: "rename a directory with a file in it",
        prepare: |dfs, root| {
            usual(dfs, root)?;
            let sub = at(dfs, at(dfs, root, "a")?, "sub")?;
            dfs.create(&ROOT, sub, b"h", 0o644, true).map(drop)
        },
        run: |dfs, root| {
            let a = at(dfs, root, "a")?;
            dfs.rename(&ROOT, a, b"sub", a, b"other", 0)
        },
    },
];

/// What there is under a path: mode, links, target or attribute.
type Seen = (u32, u32, Vec<u8>);

/// Every path with what is there. Names that go while this looks are left out.
fn look(dfs: &Dfs) -> Result<BTreeMap<String, Seen>> {
    let mut tree = BTreeMap::new();
    let mut dirs = vec![(String::new(), dfs.root())];
    while let Some((path, dir)) = dirs.pop() {
        let mut names = Vec::new();
        dfs.getdents(dir, &mut DirCursor::default(), &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.push(String::from_utf8_lossy(entry.name).into_owned());
            }
            true
        })?;
        for name in names {
            let Ok(ino) = at(dfs, dir, &name) else {
                continue;
            };
            let Ok(stat) = dfs.stat(ino) else { continue };
            let here = format!("{path}/{name}");
            if stat.mode & 0o170000 == 0o040000 {
                dirs.push((here.clone(), ino));
            }
            tree.insert(here, (stat.mode, stat.nlink, extra(dfs, ino)));
        }
    }
    let stat = dfs.stat(dfs.root())?;
    tree.insert("/".into(), (stat.mode, stat.nlink, extra(dfs, dfs.root())));
    Ok(tree)
}

fn extra(dfs: &Dfs, ino: Ino) -> Vec<u8> {
    let mut buf = vec![0; 65_536];
    let link = dfs.readlink(ino, &mut buf);
    let len = link
        .or_else(|_| dfs.getxattr(&ROOT, ino, b"user.x", &mut buf))
        .unwrap_or(0);
    buf.truncate(len);
    buf
}

/// What a walk says of a path, which may use what the thread remembers of its directories, and what
/// asking directory by directory says.
fn both_ways(dfs: &Dfs, cred: &Cred<'_>, path: &str) -> [Result<Option<Ino>>; 2] {
    let mut scratch = [0; 4096];
    let whole = dfs.walk(
        cred,
        dfs.root(),
        path.as_bytes(),
        How::default(),
        &mut scratch,
    );
    let whole = whole.map(|end| match end {
        Walk::Here(place) => place.target,
        Walk::Leave { .. } => panic!("{path} leaves"),
    });
    let (dirs, name) = path.rsplit_once('/').expect("absolute");
    let mut dirs = dirs.split('/').filter(|dir| !dir.is_empty());
    let parent = dirs.try_fold(dfs.root(), |dir, name| {
        dfs.lookup(cred, dir, name.as_bytes())
    });
    let single = parent.and_then(|dir| match dfs.lookup(cred, dir, name.as_bytes()) {
        // The walk leaves it to its caller whether there must be such a name.
        Err(Errno::ENOENT) => Ok(None),
        found => found.map(Some),
    });
    [whole, single]
}

/// What is remembered never differs from what is there.
fn check_walks<'a>(dfs: &Dfs, paths: impl Iterator<Item = &'a String> + Clone, what: &str) {
    for cred in [&ROOT, &common::user(7, &[])] {
        for path in paths.clone().filter(|path| *path != "/") {
            let [whole, single] = both_ways(dfs, cred, path);
            assert_eq!(whole, single, "{what}: {path}");
        }
    }
}

/// What a walk that follows links leads to: the mode, that of a place without a name being 0.
fn followed(dfs: &Dfs, path: &str) -> Result<u32> {
    match common::walk(dfs, &ROOT, path, true)? {
        Some(ino) => Ok(dfs.stat(ino)?.mode),
        None => Ok(0),
    }
}

/// What following walks lead to, to each path itself and through it.
fn follow_all<'a>(
    dfs: &Dfs,
    paths: impl Iterator<Item = &'a String>,
) -> Vec<(String, Result<u32>)> {
    paths
        .flat_map(|path| [path.clone(), format!("{path}/.")])
        .map(|path| (path.clone(), followed(dfs, &path)))
        .collect()
}

/// The writer; no test of its own.
#[test]
fn writer() {
    let Ok(job) = std::env::var(JOB) else { return };
    let mut parts = job.splitn(5, ';');
    let mut part = || parts.next().expect("part of the job");
    let (case, point, nth, label) = (part(), part(), part(), part());
    let case: usize = case.parse().expect("case");
    let pool = engine::testing::attach_from(part());
    let info = pool.find_container(label).expect("container");
    let dfs = Dfs::mount(pool, &info).expect("mount");
    fault::arm(
        point.to_owned().leak(),
        Action::Stop,
        nth.parse().expect("nth"),
    );
    (CASES[case].run)(&dfs, dfs.root()).expect("the change");
}

/// The writer; killed also when what is asked of it fails, lest others wait for its locks.
struct Writer(std::process::Child);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

/// Runs the change of a case in a process that stops at the `nth` passing of a point. Calls
/// `stopped` while it stands there, then kills it; `false` if it never came there.
#[expect(
    clippy::zombie_processes,
    reason = "waited for by its process id when it does not stop"
)]
fn run_to(container: &Container, job: &str, stopped: &dyn Fn()) -> bool {
    use rustix::process::{WaitOptions, waitpid};
    let (_, handover) = common::pool();
    let writer = Command::new(std::env::current_exe().expect("own path"))
        .args(["writer", "--exact", "--test-threads=1"])
        .env(JOB, format!("{job};{};{handover}", container.info.label))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("writer");
    let pid = rustix::process::Pid::from_child(&writer);
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED)
        .expect("wait")
        .expect("a change of state");
    if !status.stopped() {
        let status: ExitStatus = std::os::unix::process::ExitStatusExt::from_raw(status.as_raw());
        assert!(status.success(), "the writer failed");
        return false;
    }
    let _writer = Writer(writer);
    stopped();
    true
}

/// One case at one point; `false` if the writer never came there.
fn crash(case: usize, point: &str, nth: usize) -> bool {
    let Case { name, prepare, run } = &CASES[case];
    let what = format!("{name}, {point} {nth}");
    let (container, done) = (Container::new(), Container::new());
    for container in [&container, &done] {
        prepare(&container.dfs, container.dfs.root()).expect("prepared");
    }
    let before = look(&container.dfs).expect("before");
    run(&done.dfs, done.dfs.root()).expect("done");
    let after = look(&done.dfs).expect("after");
    let paths = || before.keys().chain(after.keys());
    let follow = |dfs: &Dfs| follow_all(dfs, paths());
    let (first, last) = (follow(&container.dfs), follow(&done.dfs));
    let check_follow = || {
        for (((path, seen), (_, first)), (_, last)) in
            follow(&container.dfs).iter().zip(&first).zip(&last)
        {
            let one = seen == first || seen == last;
            assert!(one, "{what}: {path}: {seen:?}, not {first:?} or {last:?}");
        }
    };
    check_walks(&container.dfs, paths(), &what);
    let reached = run_to(&container, &format!("{case};{point};{nth}"), &|| {
        check_walks(&container.dfs, paths(), &what);
        check_follow();
        let now = look(&container.dfs).unwrap_or_else(|errno| panic!("{what}: {errno:?}"));
        for (path, seen) in before.iter().filter(|(path, _)| after.contains_key(*path)) {
            assert!(
                now.contains_key(path),
                "{what}: {path} {seen:?} is gone for readers"
            );
        }
        if name.starts_with("rename") {
            let either =
                |path: &&String| !(before.contains_key(*path) && after.contains_key(*path));
            let ends: Vec<_> = before.keys().chain(after.keys()).filter(either).collect();
            let there = ends.iter().any(|path| now.contains_key(*path)) || ends.len() < 2;
            assert!(there, "{what}: neither name is there");
        }
    });
    check_walks(&container.dfs, paths(), &what);
    container.dfs.pool().reap().expect("reap");
    check_walks(&container.dfs, paths(), &what);
    let left = look(&container.dfs).expect("left");
    if reached {
        assert!(left == before || left == after, "{what}: {left:?}");
    } else {
        assert_eq!(left, after, "{what}");
    }
    let checked = container.dfs.check().expect("check");
    assert_eq!(checked.problems, [], "{what}");
    reached
}

#[test]
fn changes_are_whole_wherever_their_writer_stops() {
    for (case, Case { name, .. }) in CASES.iter().enumerate() {
        for point in [
            "tx.built",
            "tx.published",
            "tx.applying",
            "tx.applied",
            "tx.closed",
        ] {
            let mut nth = 1;
            while crash(case, point, nth) {
                nth += 1;
            }
            assert!(nth > 1, "{name}: {point} is never passed");
        }
    }
}
