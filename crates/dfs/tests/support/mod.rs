//! A container of any class in a temporary pool, files opened in it, and other processes.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod map;

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Cred, Dfs, Ino, IoVec, Ofd};
use engine::ContainerInfo;
use engine::testing::{TempPool, attach_from};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use sys::Result;

pub(crate) const O_RDONLY: u32 = 0;
pub(crate) const O_WRONLY: u32 = 1;
pub(crate) const O_RDWR: u32 = 2;
pub(crate) const O_APPEND: u32 = 0o2000;

unsafe extern "C" {
    #[link_name = "fork"]
    fn libc_fork() -> i32;
}

/// `fork(3)`, not the bare call: another thread of the test program may be allocating, and the child
/// has to be able to. 0 in the child.
pub(crate) fn fork() -> i32 {
    // SAFETY: libc's own fork leaves the child its allocator.
    let pid = unsafe { libc_fork() };
    assert!(pid >= 0, "fork");
    pid
}

/// The privileged caller.
pub(crate) const ROOT: Cred<'static> = Cred {
    uid: 0,
    gid: 0,
    groups: &[],
    privileged: true,
    umask: 0,
};

/// Classes every test of data runs with.
pub(crate) fn classes() -> Vec<(&'static str, ObjectClass)> {
    let replicas = |n| ObjectClass::new(Redundancy::Replicas(n), GROUPS_MAX).expect("class");
    vec![
        ("S1", ObjectClass::S1),
        ("SX", ObjectClass::SX),
        ("RP_2GX", replicas(2)),
        ("RP_3GX", replicas(3)),
    ]
}

/// A mounted container; the pool goes with it.
pub(crate) struct Container {
    pub(crate) pool: Rc<TempPool>,
    pub(crate) label: String,
    pub(crate) dfs: Dfs,
}

/// A container of each class in one pool.
pub(crate) fn containers(size_mib: u64) -> Vec<Container> {
    let pool = Rc::new(TempPool::new(4, size_mib));
    classes()
        .iter()
        .map(|(name, class)| Container::in_pool(&pool, name, *class))
        .collect()
}

impl Container {
    pub(crate) fn new(class: ObjectClass, size_mib: u64) -> Container {
        Container::in_pool(&Rc::new(TempPool::new(4, size_mib)), "test", class)
    }

    pub(crate) fn in_pool(pool: &Rc<TempPool>, label: &str, class: ObjectClass) -> Container {
        let spec = ContainerInfo {
            uuid: uuid::Uuid::new_v4(),
            label: label.into(),
            index: 0,
            root: (0, 0),
            file_class: class.id(),
            dir_class: class.id(),
            chunk_size: 1 << 20,
            blob: Vec::new(),
        };
        let mut info = pool.pool.create_container(&spec).expect("container");
        let root = Dfs::make_root(pool.pool, &info, 0, 0, 0o755).expect("root");
        info.root = (root.number, root.generation);
        pool.pool.update_container(&info).expect("root recorded");
        let dfs = Dfs::mount(pool.pool, &info).expect("mount");
        Container {
            pool: pool.clone(),
            label: label.into(),
            dfs,
        }
    }

    pub(crate) fn file(&self, name: &str, flags: u32) -> File<'_> {
        File::open(&self.dfs, name, flags)
    }

    /// Runs the named test of this binary in another process, as `role` on this pool.
    pub(crate) fn spawn(&self, test: &str, role: &str) -> Child {
        self.spawn_with(test, role, |_| {})
    }

    /// As [`Container::spawn`], with whatever else `prepare` sets.
    pub(crate) fn spawn_with(
        &self,
        test: &str,
        role: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env("PIL4DFS_TEST_POOL", self.pool.handover())
            .env("PIL4DFS_TEST_ROLE", role)
            .env("PIL4DFS_TEST_CONTAINER", &self.label)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        prepare(&mut command);
        command.spawn().expect("spawn")
    }

    /// Blocks of the pool in use.
    pub(crate) fn used(&self) -> u64 {
        let stat = self.dfs.statfs().expect("statfs");
        stat.blocks - stat.bfree
    }
}

/// In a process made by [`Container::spawn`]: its role and the container.
pub(crate) fn role() -> Option<(String, Dfs)> {
    let role = std::env::var("PIL4DFS_TEST_ROLE").ok()?;
    let pool = attach_from(&std::env::var("PIL4DFS_TEST_POOL").expect("pool"));
    let label = std::env::var("PIL4DFS_TEST_CONTAINER").expect("container");
    let info = pool.find_container(&label).expect("container");
    Some((role, Dfs::mount(pool, &info).expect("mount")))
}

/// An open file.
pub(crate) struct File<'d> {
    pub(crate) dfs: &'d Dfs,
    pub(crate) ino: Ino,
    pub(crate) ofd: Ofd,
}

impl<'d> File<'d> {
    pub(crate) fn open(dfs: &'d Dfs, name: &str, flags: u32) -> File<'d> {
        let (ino, _) = dfs
            .create(&ROOT, dfs.root(), name.as_bytes(), 0o644, false)
            .expect("create");
        let ofd = dfs.open(&ROOT, ino, flags).expect("open");
        File { dfs, ino, ofd }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize> {
        // SAFETY: the buffer is only read.
        unsafe { self.dfs.write(self.ofd, &[iov(bytes)]) }
    }

    pub(crate) fn read(&self, bytes: &mut [u8]) -> Result<usize> {
        let iov = [IoVec {
            base: bytes.as_mut_ptr(),
            len: bytes.len(),
        }];
        // SAFETY: the buffer is exclusively ours.
        unsafe { self.dfs.read(self.ofd, &iov) }
    }

    pub(crate) fn pwrite(&self, bytes: &[u8], pos: u64) -> Result<usize> {
        // SAFETY: the buffer is only read.
        unsafe { self.dfs.pwrite(self.ofd, &[iov(bytes)], pos as i64, false) }
    }

    pub(crate) fn pread(&self, bytes: &mut [u8], pos: u64) -> Result<usize> {
        let iov = [IoVec {
            base: bytes.as_mut_ptr(),
            len: bytes.len(),
        }];
        // SAFETY: the buffer is exclusively ours.
        unsafe { self.dfs.pread(self.ofd, &iov, pos as i64) }
    }

    pub(crate) fn size(&self) -> u64 {
        self.dfs.stat(self.ino).expect("stat").size
    }

    /// The whole content.
    pub(crate) fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size() as usize];
        let read = self.pread(&mut bytes, 0).expect("read");
        assert_eq!(read, bytes.len());
        bytes
    }
}

impl Drop for File<'_> {
    fn drop(&mut self) {
        self.dfs.ofd_release(self.ofd).expect("release");
    }
}

fn iov(bytes: &[u8]) -> IoVec {
    IoVec {
        base: bytes.as_ptr().cast_mut(),
        len: bytes.len(),
    }
}

/// Tells the parent something.
pub(crate) fn say(text: &str) {
    println!("SAY {text}");
    std::io::stdout().flush().expect("flush");
}

/// Waits until the child says something.
pub(crate) fn heard(child: &mut Child) -> String {
    let mut out = BufReader::new(child.stdout.as_mut().expect("piped"));
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(
            out.read_line(&mut line).expect("read"),
            0,
            "the child ended silently"
        );
        if let Some(said) = line.trim_end().split("SAY ").nth(1) {
            return said.to_string();
        }
    }
}

/// Waits for [`go`].
pub(crate) fn wait_for_go() {
    let mut byte = [0];
    std::io::stdin().read_exact(&mut byte).expect("go");
}

/// Lets a child go on that waits.
pub(crate) fn go(child: &mut Child) {
    child
        .stdin
        .as_mut()
        .expect("piped")
        .write_all(b"g")
        .expect("go");
}
