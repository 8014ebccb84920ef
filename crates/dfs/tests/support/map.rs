//! Mappings as the front end makes them, and the cache files behind them.

use super::Container;
use dfs::{Dfs, Ino, Ofd};
use rustix::fd::{FromRawFd, OwnedFd};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use sys::uaccess;

/// A mapping, read and written through guarded copies.
pub(crate) struct Map {
    base: usize,
    len: usize,
}

impl Map {
    pub(crate) fn new(dfs: &Dfs, ofd: Ofd, shared: bool, off: u64, len: usize) -> Map {
        let source = dfs
            .map_begin(ofd, shared, shared, off, len as u64)
            .expect("map_begin");
        // SAFETY: the descriptor is ours from here on.
        let fd = unsafe { OwnedFd::from_raw_fd(source.fd) };
        let flags = if shared {
            MapFlags::SHARED
        } else {
            MapFlags::PRIVATE
        };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(core::ptr::null_mut(), len, prot, flags, &fd, source.offset)
        };
        Map {
            base: base.expect("mmap") as usize,
            len,
        }
    }

    pub(crate) fn get(&self, off: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        uaccess::copy_in(&mut bytes, self.base + off)
            .ok()
            .map(|()| bytes)
    }

    pub(crate) fn put(&self, off: usize, bytes: &[u8]) {
        // SAFETY: the mapping is only touched through this type.
        unsafe { uaccess::copy_out(self.base + off, bytes) }.expect("mapped");
    }

    pub(crate) fn end(self, dfs: &Dfs, ino: Ino) {
        self.unmap();
        dfs.map_sync(ino, 0, u64::MAX, false).expect("map_sync");
        dfs.map_end(ino).expect("map_end");
    }

    pub(crate) fn unmap(self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { rustix::mm::munmap(self.base as *mut _, self.len) }.expect("munmap");
    }
}

/// Paths of the files that lie beside the arena of a pool.
pub(crate) fn cache_paths(c: &Container) -> Vec<PathBuf> {
    let arena = c.pool.pool.arena_path();
    let prefix = [arena.file_name().expect("name").as_bytes(), b"."].concat();
    let entries = std::fs::read_dir(arena.parent().expect("directory")).expect("list");
    let paths = entries.map(|entry| entry.expect("entry").path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().expect("name").as_bytes();
        name.starts_with(&prefix)
    };
    paths.filter(ours).collect()
}

/// Number of files that lie beside the arena of a pool.
pub(crate) fn cache_files(c: &Container) -> usize {
    cache_paths(c).len()
}

/// Bytes that the cache files of a pool take.
pub(crate) fn cache_bytes(c: &Container) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let blocks = |path: PathBuf| path.metadata().expect("metadata").blocks();
    cache_paths(c).into_iter().map(blocks).sum::<u64>() * 512
}
