//! Removing whole trees, for containers that go.

use crate::inode::{self, Guard, locate};
use crate::{Cred, DT_DIR, Dfs, DirCursor, Ino};
use engine::Rec;
use sys::{Errno, Result};

/// Deepest tree that is followed: damage must not become an endless walk.
const DEPTH_MAX: usize = 1 << 16;
/// Looks at a directory in a row that may find only names that cannot be removed.
const IDLE_MAX: usize = 64;
/// Names removed between two looks at a directory.
const BATCH: usize = 256;

/// The caller to whom nothing is forbidden.
pub(crate) const PRIVILEGED: Cred<'static> = Cred {
    uid: 0,
    gid: 0,
    groups: &[],
    privileged: true,
    umask: 0,
};

impl Dfs {
    /// Removes everything below a directory, whoever owns it; `removed` is told the number of
    /// names removed so far from time to time. Files that are open live on. On an error the rest
    /// stays.
    pub fn empty(&self, dir: Ino, removed: &mut dyn FnMut(u64)) -> Result<()> {
        let mut above: Vec<(Ino, Vec<u8>)> = Vec::new();
        let (mut here, mut count, mut idle) = (dir, 0u64, 0);
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            self.getdents(here, &mut DirCursor::default(), &mut |entry| {
                if entry.name != b"." && entry.name != b".." {
                    batch.push((entry.name.to_vec(), entry.kind));
                }
                batch.len() < BATCH
            })?;
            if batch.is_empty() {
                let Some((parent, name)) = above.pop() else {
                    return Ok(());
                };
                gone_is_fine(self.rmdir(&PRIVILEGED, parent, &name))?;
                here = parent;
                continue;
            }
            let mut down = None;
            let before = count;
            for (name, kind) in batch {
                let done = match kind {
                    DT_DIR => self.rmdir(&PRIVILEGED, here, &name),
                    _ => self.unlink(&PRIVILEGED, here, &name),
                };
                if done == Err(Errno::ENOTEMPTY) {
                    down = Some(name);
                    break;
                }
                gone_is_fine(done)?;
                count += u64::from(done.is_ok());
            }
            removed(count);
            idle = if count == before && down.is_none() {
                idle + 1
            } else {
                0
            };
            if idle > IDLE_MAX {
                return Err(Errno::EIO);
            }
            if let Some(name) = down {
                if above.len() >= DEPTH_MAX {
                    return Err(Errno::EIO);
                }
                let child = self.lookup(&PRIVILEGED, here, &name)?;
                above.push((here, name));
                here = child;
            }
        }
    }

    /// Removes everything in the container and its root; the caller then removes the container
    /// from the pool. Files that are open elsewhere live on until they are closed.
    pub fn destroy(self, removed: &mut dyn FnMut(u64)) -> Result<()> {
        self.empty(self.root, removed)?;
        self.drain_reclaim();
        loop {
            let mut tx = self.pool.tx(&[inode::lock(self.pool, self.root)?])?;
            let offset = locate(self.pool, self.root)?;
            let guard = Guard::read(self.pool, offset)?;
            let done = self.free_contents(&mut tx, self.root, offset, &guard)?;
            if done {
                tx.free(Rec(self.root.number as u32))?;
            }
            tx.commit()?;
            if done {
                return Ok(());
            }
        }
    }
}

/// Somebody else may have removed a name first.
fn gone_is_fine(done: Result<()>) -> Result<()> {
    match done {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}
