//! Pools of unit tests: recovered in place beside those that are attached, of which a process has
//! only a few. A thread has one at a time.

use super::{NAME, TempPool, open_image};
use crate::EngineError;
use crate::layout::{PageLink, kind, rank, rank_at};
use crate::pool::{LockId, Pool, PoolSpec};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The right to have a tape run: a process has one.
pub(crate) fn taping() -> MutexGuard<'static, ()> {
    static TAPE: Mutex<()> = Mutex::new(());
    TAPE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pool in a fresh directory, which goes when this is dropped.
pub(crate) struct Image {
    dir: PathBuf,
    pub(crate) spec: PoolSpec,
    pub(crate) pool: &'static Pool,
}

impl Image {
    pub(crate) fn new(ranks: usize) -> Image {
        let name = format!("{NAME}{}", uuid::Uuid::new_v4().simple());
        let dir = std::env::temp_dir().join(name);
        let dirs: Vec<PathBuf> = (0..ranks)
            .map(|rank| dir.join(format!("rank{rank:02}")))
            .collect();
        for rank in &dirs {
            std::fs::create_dir_all(rank).expect("rank");
        }
        let spec = TempPool::spec_of_ranks(&dirs, 64);
        Pool::format(&spec).expect("format");
        let pool = open_image(&dir, &spec).expect("made");
        Image { dir, spec, pool }
    }

    /// Builds the arena anew, from what the ranks hold.
    pub(crate) fn reopen(&mut self) {
        self.pool.leave().expect("leave");
        self.pool = open_image(&self.dir, &self.spec).expect("recovered");
    }

    /// The same, which has to be refused, and why.
    pub(crate) fn refused(&mut self) -> String {
        self.pool.leave().expect("leave");
        let Err(EngineError::Lacking(why)) = open_image(&self.dir, &self.spec) else {
            panic!("it was brought up, or refused for another reason");
        };
        why
    }

    /// What the ranks' files have.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let ranks = self
            .spec
            .ranks
            .iter()
            .filter_map(|rank| std::fs::read_dir(rank).ok());
        let paths = ranks.flatten().map(|file| file.expect("file").path());
        let mut files: Vec<_> = paths
            .map(|path| (path.clone(), std::fs::read(path).expect("file")))
            .collect();
        files.sort();
        files
    }

    /// Looks at what a copy of the ranks leads to.
    pub(crate) fn with_copy(&self, look: impl FnOnce(&Pool)) {
        self.pool.leave().expect("leave");
        let image = self.dir.join("copy");
        for rank in self.spec.ranks.iter().filter(|rank| rank.exists()) {
            let copy = image.join(rank.file_name().expect("name"));
            std::fs::create_dir_all(&copy).expect("directory");
            for file in std::fs::read_dir(rank).expect("rank").flatten() {
                std::fs::copy(file.path(), copy.join(file.file_name())).expect("copy");
            }
        }
        let pool = open_image(&image, &self.spec).expect("recovered");
        look(pool);
        pool.leave().expect("leave");
        std::fs::remove_dir_all(&image).expect("image");
    }

    /// Takes a rank's directory away, and brings it back.
    pub(crate) fn take_away(&self, r: usize) {
        let dir = &self.spec.ranks[r];
        std::fs::rename(dir, dir.with_extension("away")).expect("away");
    }

    pub(crate) fn bring_back(&self, r: usize) {
        let dir = &self.spec.ranks[r];
        std::fs::rename(dir.with_extension("away"), dir).expect("back");
    }

    /// Has the next checkpoint write a rank's frames anew, for they take more than is allowed.
    pub(crate) fn outgrow(&self, r: u16) {
        const SIZE: u64 = 64 << 20;
        let meta = self.spec.ranks[usize::from(r)].join("meta");
        let meta = std::fs::File::options().write(true).open(meta);
        meta.expect("frames").set_len(SIZE).expect("size");
        let end = rank_at(r) + rank::META_END;
        self.pool.store(end, SIZE).expect("end");
    }

    /// A new page.
    pub(crate) fn page(&self, target: u16, replicas: u8) -> PageLink {
        let mut tx = self.pool.tx(&[LockId::Target(target)]).expect("tx");
        let page = tx.alloc_page(kind::BLOB, target, replicas, true);
        tx.commit().expect("commit");
        page.expect("page")
    }

    pub(crate) fn put(&self, page: PageLink, target: u16, value: u64) {
        let mut tx = self.pool.tx(&[LockId::Target(target)]).expect("tx");
        tx.put(page.offset(), &[value; 10]).expect("put");
        tx.commit().expect("commit");
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let left = self.pool.leave();
        let cleaned = std::fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            left.expect("leave");
            cleaned.expect("directory");
        }
    }
}
