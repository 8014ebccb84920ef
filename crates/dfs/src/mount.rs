//! A mounted container: the handle everything else is a method of.

use crate::inode::{self, Guard, INODE_BYTES, INODE_WORDS, S_IFDIR, at, is_dir, pair, word};
use crate::{Ino, StatFs};
use core::sync::atomic::{AtomicPtr, Ordering};
use daos_types::ObjectClass;
use engine::{ContainerInfo, LockId, Pool, kind, tag_generation};
use sys::{Errno, Result};

/// A container of an attached pool, as this process holds it. All methods may be called from any
/// thread at any time.
pub struct Dfs {
    pub(crate) pool: &'static Pool,
    pub(crate) root: Ino,
    pub(crate) container: u32,
    /// A `fn() -> bool`, see [`Dfs::ask_privilege`]; null if there is none.
    privilege: AtomicPtr<()>,
}

/// Processes a mount looks at for dead ones, whose affairs it puts in order.
const REAP_AT_MOUNT: usize = 2;

impl Dfs {
    /// Opens the namespace of a container, whose root [`Dfs::make_root`] has made (`ENOENT` if
    /// not). `EIO` if the root is not a directory.
    pub fn mount(pool: &'static Pool, container: &ContainerInfo) -> Result<Dfs> {
        let (number, generation) = container.root;
        if number == 0 {
            return Err(Errno::ENOENT);
        }
        let root = Ino { number, generation };
        let guard = Guard::of(pool, root).map_err(|_| Errno::EIO)?;
        if !is_dir(guard.mode) {
            return Err(Errno::EIO);
        }
        let dfs = Dfs {
            pool,
            root,
            container: container.index,
            privilege: AtomicPtr::new(core::ptr::null_mut()),
        };
        pool.after_rebuild(|| {
            // First, what somebody who was killed at this has queued.
            dfs.drain_reclaim();
            dfs.count_blocks()?;
            dfs.reclaim_orphans().map(drop)
        })?;
        dfs.drain_reclaim();
        // Whether others' affairs could be put in order is no concern of this mount.
        dfs.reap(REAP_AT_MOUNT).unwrap_or_default();
        // What is not proven may be lost in a power failure, no more.
        pool.prove_others().unwrap_or_default();
        Ok(dfs)
    }

    /// Makes the root directory of a new container, with permissions `mode`, and returns its
    /// inode: the caller records it as `ContainerInfo::root`. Classes and chunk size are those of
    /// `container`; `EINVAL` if there is no such class.
    pub fn make_root(
        pool: &'static Pool,
        container: &ContainerInfo,
        uid: u32,
        gid: u32,
        mode: u32,
    ) -> Result<Ino> {
        let class = ObjectClass::from_id(container.dir_class).ok_or(Errno::EINVAL)?;
        let object = u64::from(container.index);
        let (target, replicas) = engine::place::directory(pool.target_count(), class, object);
        let mut tx = pool.tx(&[LockId::Target(target)])?;
        let rec = tx.alloc(kind::INODE, INODE_BYTES, target, replicas)?;
        let generation = tag_generation(tx.load(rec.offset())?);
        let ino = Ino {
            number: u64::from(rec.0),
            generation,
        };
        let mut words = [0; INODE_WORDS];
        words[word::MODE as usize] = pair(S_IFDIR | mode & 0o7777, 2);
        words[word::OWNER as usize] = pair(uid, gid);
        words[word::MTIME as usize..=word::BTIME as usize].fill(pool.now_ns() as u64);
        words[word::PARENT as usize] = inode::link_word(ino);
        words[word::CLASS as usize] = pair(container.file_class, container.chunk_size);
        words[word::CONTAINER as usize] = pair(container.dir_class, container.index);
        tx.put(at(rec.offset(), 1), &words[1..])?;
        tx.commit()?;
        Ok(ino)
    }

    /// Names a function that says whether the calling thread is privileged now: whoever writes then
    /// keeps set-id bits or not by that, instead of by who opened the file.
    pub fn ask_privilege(&self, asked: fn() -> bool) {
        self.privilege.store(asked as *mut (), Ordering::Release);
    }

    /// Whether the calling thread is privileged, if somebody knows.
    pub(crate) fn is_privileged(&self) -> Option<bool> {
        let asked = self.privilege.load(Ordering::Acquire);
        // SAFETY: the pointer was stored by `ask_privilege` from a function of this type.
        (!asked.is_null())
            .then(|| unsafe { core::mem::transmute::<*mut (), fn() -> bool>(asked) }())
    }

    /// The root directory.
    pub fn root(&self) -> Ino {
        self.root
    }

    /// The pool the container is in.
    pub fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// Figures of the pool that `statfs(2)` shows. The number of inodes is bounded by space only.
    pub fn statfs(&self) -> Result<StatFs> {
        let (blocks, bfree) = self.pool.space()?;
        let fsid = self.pool.instance() ^ u64::from(self.container) << 48;
        Ok(StatFs {
            blocks,
            bfree,
            files: blocks,
            ffree: bfree,
            fsid,
        })
    }
}
