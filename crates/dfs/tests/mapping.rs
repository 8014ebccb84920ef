//! Mappings of files: private ones, shared ones coherent with reading and writing.

mod support;

use daos_types::ObjectClass;
use dfs::{Dfs, Ino, Ofd};
use rustix::fd::{FromRawFd, OwnedFd};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::unix::ffi::OsStrExt;
use support::{
    Container, File, O_RDONLY, O_RDWR, O_WRONLY, containers, heard, role, say, wait_for_go,
};
use sys::{Errno, uaccess};

/// A mapping, read and written through guarded copies.
struct Map {
    base: usize,
    len: usize,
}

impl Map {
    fn new(dfs: &Dfs, ofd: Ofd, shared: bool, off: u64, len: usize) -> Map {
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

    fn get(&self, off: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        uaccess::copy_in(&mut bytes, self.base + off)
            .ok()
            .map(|()| bytes)
    }

    fn put(&self, off: usize, bytes: &[u8]) {
        // SAFETY: the mapping is only touched through this type.
        unsafe { uaccess::copy_out(self.base + off, bytes) }.expect("mapped");
    }

    fn end(self, dfs: &Dfs, ino: Ino) {
        self.unmap();
        dfs.map_sync(ino, 0, u64::MAX, false).expect("map_sync");
        dfs.map_end(ino).expect("map_end");
    }

    fn unmap(self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { rustix::mm::munmap(self.base as *mut _, self.len) }.expect("munmap");
    }
}

/// Files that lie beside the arena of a pool.
fn cache_files(c: &Container) -> usize {
    let arena = c.pool.pool.arena_path();
    let prefix = [arena.file_name().expect("name").as_bytes(), b"."].concat();
    let entries = std::fs::read_dir(arena.parent().expect("directory")).expect("list");
    entries
        .filter(|e| {
            e.as_ref()
                .expect("entry")
                .file_name()
                .as_bytes()
                .starts_with(&prefix)
        })
        .count()
}

#[test]
fn shared_mappings_agree_with_reads_and_writes() {
    uaccess::install().expect("install");
    for c in containers(256) {
        let f = c.file("f", O_RDWR);
        let content: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        f.write(&content).expect("write");
        let map = Map::new(&c.dfs, f.ofd, true, 0, 64 << 10);
        assert!(map.get(0, 50_000).expect("mapped") == content);
        map.put(100, b"through the mapping");
        let mut part = [0; 19];
        assert_eq!(f.pread(&mut part, 100), Ok(19));
        assert_eq!(&part, b"through the mapping");
        f.pwrite(b"through write", 9000).expect("write");
        assert_eq!(map.get(9000, 13).expect("mapped"), b"through write");
        // Growing shows new pages, shrinking takes them away.
        c.dfs.ftruncate(f.ofd, 61_441).expect("truncate");
        assert_eq!(map.get(61_440, 1).expect("mapped"), [0]);
        map.put(61_440, b"!");
        c.dfs.ftruncate(f.ofd, 5000).expect("truncate");
        assert_eq!(map.get(8192, 1), None);
        assert_eq!(f.content()[100..119], *b"through the mapping");
        c.dfs.fallocate(f.ofd, 3, 0, 200).expect("punch");
        assert_eq!(map.get(100, 19).expect("mapped"), [0; 19]);
        map.put(4000, b"last words");
        c.dfs.map_sync(f.ino, 0, u64::MAX, true).expect("sync");
        map.put(4010, b", later");
        assert_eq!(cache_files(&c), 1);
        map.end(&c.dfs, f.ino);
        assert_eq!(
            cache_files(&c),
            0,
            "the cache file went with the last mapping"
        );
        assert_eq!(
            f.content()[4000..4017],
            *b"last words, later",
            "{}",
            c.label
        );
        assert_eq!(f.size(), 5000);
        assert_eq!(c.dfs.map_end(f.ino), Err(Errno::EINVAL));
    }
}

#[test]
fn private_mappings_keep_to_themselves() {
    uaccess::install().expect("install");
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(&[7; 10_000]).expect("write");
    let map = Map::new(&c.dfs, f.ofd, false, 4096, 16_384);
    assert_eq!(map.get(0, 5904).expect("mapped"), [7; 5904]);
    assert_eq!(map.get(5904, 100).expect("mapped"), [0; 100]);
    assert_eq!(map.get(8192, 1), None, "beyond the end");
    map.put(0, b"mine");
    assert_eq!(f.content(), [7; 10_000]);
    map.unmap();
    let (r, w) = (c.file("f", O_RDONLY), c.file("f", O_WRONLY));
    assert_eq!(
        c.dfs.map_begin(w.ofd, false, false, 0, 1),
        Err(Errno::EACCES)
    );
    assert_eq!(c.dfs.map_begin(r.ofd, true, true, 0, 1), Err(Errno::EACCES));
    assert_eq!(
        c.dfs.map_begin(r.ofd, false, true, 1, 1),
        Err(Errno::EINVAL)
    );
    let source = c
        .dfs
        .map_begin(r.ofd, true, false, 0, 4096)
        .expect("map_begin");
    // SAFETY: the descriptor is ours from here on.
    let fd = unsafe { OwnedFd::from_raw_fd(source.fd) };
    let flags = rustix::fs::fcntl_getfl(&fd).expect("flags");
    assert!(
        !flags.intersects(rustix::fs::OFlags::RDWR),
        "cannot become writable"
    );
    c.dfs.map_end(f.ino).expect("map_end");
    let root = c.dfs.open(&support::ROOT, c.dfs.root(), 0).expect("open");
    assert_eq!(
        c.dfs.map_begin(root, false, false, 0, 1),
        Err(Errno::ENODEV)
    );
    c.dfs.ofd_release(root).expect("release");
}

#[test]
fn large_private_mappings_share_the_pages_of_the_file() {
    const LEN: usize = 3 << 20;
    uaccess::install().expect("install");
    for c in containers(256) {
        let f = c.file("f", O_RDWR);
        f.write(&vec![7; LEN]).expect("write");
        let map = Map::new(&c.dfs, f.ofd, false, 0, LEN);
        let small = Map::new(&c.dfs, f.ofd, false, 0, 4096);
        assert_eq!(cache_files(&c), 1, "one for both");
        map.put(5000, b"mine");
        f.pwrite(b"later", 9000).expect("write");
        f.pwrite(b"later", 5000).expect("write");
        assert_eq!(map.get(9000, 5).expect("mapped"), b"later");
        assert_eq!(map.get(5000, 5).expect("mapped"), b"mine\x07");
        assert_eq!(f.content()[5000..5005], *b"later");
        assert_eq!(f.content()[9000..9005], *b"later");
        c.dfs.ftruncate(f.ofd, 8192).expect("truncate");
        assert_eq!(map.get(1 << 20, 1), None, "beyond the end");
        assert_eq!(map.get(5000, 4).expect("a page of its own"), b"mine");
        // Nothing of it goes to the pool, whatever is asked for.
        c.dfs.map_sync(f.ino, 0, u64::MAX, false).expect("sync");
        c.dfs.fsync(f.ofd).expect("fsync");
        map.end(&c.dfs, f.ino);
        assert_eq!(cache_files(&c), 1, "the small one has it still");
        small.end(&c.dfs, f.ino);
        assert_eq!(cache_files(&c), 0);
        let content = f.content();
        assert_eq!(
            (content.len(), &content[5000..5006]),
            (8192, &b"later\x07"[..])
        );
        // Too small a part of the file, or too small.
        f.write(&vec![8; LEN]).expect("write");
        for len in [1 << 20, 8192] {
            Map::new(&c.dfs, f.ofd, false, 0, len).unmap();
        }
        assert_eq!(cache_files(&c), 0);
    }
}

#[test]
fn stores_nobody_has_brought_home_are_looked_for() {
    uaccess::install().expect("install");
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(&[7; 10_000]).expect("write");
    // The mapping ends, and what went wrong before is noted.
    let map = Map::new(&c.dfs, f.ofd, true, 0, 16_384);
    map.put(5000, b"first");
    map.unmap();
    c.dfs.map_unsure(f.ino).expect("map_unsure");
    c.dfs.map_end(f.ino).expect("map_end");
    assert_eq!(f.content()[5000..5005], *b"first");
    // The process leaves without having synced.
    let map = Map::new(&c.dfs, f.ofd, true, 0, 16_384);
    map.put(6000, b"second");
    c.dfs.maps_synced().expect("maps_synced");
    let again = Map::new(&c.dfs, f.ofd, true, 0, 16_384);
    again.put(7000, b"third");
    again.unmap();
    map.unmap();
    // The description goes with the process.
    std::mem::forget(f);
    c.dfs.leave().expect("leave");
    assert_eq!(cache_files(&c), 0);
    let f = c.file("f", O_RDWR);
    assert_eq!(f.content()[5000..5005], *b"first");
    assert_eq!(f.content()[6000..6006], *b"second");
    assert_eq!(f.content()[7000..7005], *b"third");
}

#[test]
fn processes_share_and_the_dead_lose_nothing() {
    uaccess::install().expect("install");
    if let Some((_, dfs)) = role() {
        let f = File::open(&dfs, "f", O_RDWR);
        let map = Map::new(&dfs, f.ofd, true, 0, 8192);
        assert_eq!(map.get(10, 6).expect("mapped"), b"parent");
        map.put(5000, b"child");
        say("stored");
        wait_for_go();
        unreachable!("killed while waiting");
    }
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(&[1; 6000]).expect("write");
    let map = Map::new(&c.dfs, f.ofd, true, 0, 8192);
    map.put(10, b"parent");
    let mut child = c.spawn("processes_share_and_the_dead_lose_nothing", "x");
    assert_eq!(heard(&mut child), "stored");
    assert_eq!(map.get(5000, 5).expect("mapped"), b"child");
    map.end(&c.dfs, f.ino);
    assert_eq!(cache_files(&c), 1, "the child still has it");
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(f.content()[5000..5005], *b"child");
    assert_eq!(c.dfs.reap(usize::MAX), Ok(1));
    assert_eq!(cache_files(&c), 0);
    assert_eq!(f.content()[5000..5005], *b"child");
    assert_eq!(f.content()[10..16], *b"parent");
}

#[test]
fn a_mapping_keeps_an_unlinked_file() {
    uaccess::install().expect("install");
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(b"kept by the mapping").expect("write");
    let (ino, map) = (f.ino, Map::new(&c.dfs, f.ofd, true, 0, 4096));
    c.dfs
        .unlink(&support::ROOT, c.dfs.root(), b"f")
        .expect("unlink");
    drop(f);
    assert_eq!(map.get(0, 4).expect("mapped"), b"kept");
    assert!(c.dfs.stat(ino).is_ok());
    map.end(&c.dfs, ino);
    assert!(c.dfs.stat(ino).is_err());
    assert_eq!(cache_files(&c), 0);
}
