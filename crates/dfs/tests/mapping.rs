//! Mappings of files: private ones, shared ones coherent with reading and writing.

mod support;

use daos_types::ObjectClass;
use dfs::{Dfs, IoVec};
use rustix::fd::{FromRawFd, OwnedFd};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::os::unix::process::ExitStatusExt;
use support::map::{Map, cache_files, cache_paths};
use support::{
    Container, File, O_RDONLY, O_RDWR, O_WRONLY, containers, heard, role, say, wait_for_go,
};
use sys::{Errno, uaccess};

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
fn what_a_forked_child_stores_after_its_parent_has_synced_is_looked_for() {
    const SYS_EXIT_GROUP: usize = 231;
    uaccess::install().expect("install");
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(&[1; 6000]).expect("write");
    let map = Map::new(&c.dfs, f.ofd, true, 0, 8192);
    let token = c.dfs.fork_prepare().expect("prepare").expect("mapped");
    // As at the end of the parent, which the child does not wait for.
    c.dfs.maps_synced().expect("maps_synced");
    let pid = support::fork();
    if pid == 0 {
        let adopted = c.dfs.ofd_adopt_after_fork(token, &[f.ofd]);
        map.put(5000, b"child");
        // SAFETY: ends the child without running anything of the parent's, as if it were killed.
        unsafe { sys::syscall!(SYS_EXIT_GROUP, usize::from(adopted.is_err())) }.expect("exit");
    }
    let pid = rustix::process::Pid::from_raw(pid).expect("pid");
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
        .expect("wait")
        .expect("ended");
    assert_eq!(status.exit_status(), Some(0));
    assert_eq!(c.dfs.reap(usize::MAX), Ok(1));
    map.unmap();
    c.dfs.map_end(f.ino).expect("map_end");
    assert_eq!(cache_files(&c), 0);
    assert_eq!(f.content()[5000..5005], *b"child");
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

#[test]
fn what_was_left_in_place_of_a_cache_file_is_not_shown() {
    uaccess::install().expect("install");
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(b"the file's own").expect("write");
    let map = Map::new(&c.dfs, f.ofd, true, 0, 4096);
    let path = cache_paths(&c).pop().expect("a cache file");
    map.end(&c.dfs, f.ino);
    // As by a process that died before it had registered the file.
    std::fs::write(&path, [b'x'; 9000]).expect("write");
    let map = Map::new(&c.dfs, f.ofd, true, 0, 4096);
    assert_eq!(map.get(0, 14).expect("mapped"), b"the file's own");
    assert_eq!(map.get(14, 100).expect("mapped"), [0; 100]);
    assert_eq!(cache_paths(&c), [path]);
    map.end(&c.dfs, f.ino);
    assert_eq!(f.content(), b"the file's own");
    assert_eq!(cache_files(&c), 0);
}

/// Runs the named test in another process, as `role`, until that has killed itself.
fn run_to_death(c: &Container, test: &str, role: &str) {
    let status = c.spawn(test, role).wait().expect("wait");
    assert_eq!(status.signal(), Some(9), "{role} {}", c.label);
}

/// Punches a hole or writes, and is killed as it comes to a point: `point nth`.
fn change_and_die(role: &str, dfs: &Dfs) {
    let (point, nth) = role.split_once(' ').expect("role");
    let point = ["map.punched", "map.mirrored", "write.stored"]
        .into_iter()
        .find(|known| *known == point)
        .expect("point");
    let f = File::open(dfs, "f", O_RDWR);
    shm::fault::arm(point, shm::fault::Action::Kill, nth.parse().expect("nth"));
    if point == "map.punched" {
        dfs.fallocate(f.ofd, 3, 5000, 40_000).expect("punch");
    } else {
        f.pwrite(&[8; 20_000], 5000).expect("write");
    }
    unreachable!("killed at {point}");
}

#[test]
fn what_a_killed_process_has_changed_for_all_to_see_stays_so() {
    const TEST: &str = "what_a_killed_process_has_changed_for_all_to_see_stays_so";
    uaccess::install().expect("install");
    if let Some((role, dfs)) = role() {
        return change_and_die(&role, &dfs);
    }
    for c in containers(256) {
        let f = c.file("f", O_RDWR);
        // Before the pool is changed at all, within a piece of the change, within a write.
        for role in ["map.punched 1", "map.punched 2", "map.mirrored 1"] {
            f.write(&[7; 60_000]).expect("write");
            let map = Map::new(&c.dfs, f.ofd, true, 0, 60_000);
            run_to_death(&c, TEST, role);
            let seen = map.get(0, 60_000).expect("mapped");
            assert!(seen == f.content(), "{role} {}", c.label);
            assert!(seen != [7; 60_000], "{role} {}", c.label);
            // Nothing was stored through this mapping.
            map.unmap();
            c.dfs.map_end(f.ino).expect("map_end");
            assert_eq!(cache_files(&c), 0);
            assert!(seen == f.content(), "{role} {}", c.label);
            c.dfs.ftruncate(f.ofd, 0).expect("truncate");
            c.dfs.seek(f.ofd, 0, 0).expect("seek");
        }
    }
}

#[test]
fn mappings_only_for_reading_agree_with_the_pool_again() {
    const TEST: &str = "mappings_only_for_reading_agree_with_the_pool_again";
    const LEN: usize = 2 << 20;
    uaccess::install().expect("install");
    if let Some((role, dfs)) = role() {
        return change_and_die(&role, &dfs);
    }
    for c in containers(256) {
        let f = c.file("f", O_RDWR);
        for role in ["map.punched 1", "map.mirrored 1", "write.stored 1"] {
            for finder in ["write", "map", "sync"] {
                f.pwrite(&[7; LEN], 0).expect("write");
                let map = Map::new(&c.dfs, f.ofd, false, 0, LEN);
                assert_eq!(cache_files(&c), 1);
                if role.starts_with("write") && c.label.starts_with('R') {
                    // There is no such point on the way of what is not stored in place.
                    c.dfs.fallocate(f.ofd, 3, 4096, 40_960).expect("punch");
                    c.dfs.fallocate(f.ofd, 1, 4096, 40_960).expect("space");
                }
                run_to_death(&c, TEST, role);
                match finder {
                    "write" => drop(f.pwrite(b"elsewhere", 1 << 20).expect("write")),
                    "map" => Map::new(&c.dfs, f.ofd, true, 0, 4096).end(&c.dfs, f.ino),
                    _ => c.dfs.fsync(f.ofd).expect("fsync"),
                }
                let seen = map.get(0, LEN).expect("mapped");
                assert!(seen == f.content(), "{role} {finder} {}", c.label);
                map.unmap();
                c.dfs.map_end(f.ino).expect("map_end");
                assert_eq!(cache_files(&c), 0);
                assert!(seen == f.content(), "{role} {finder} {}", c.label);
            }
        }
        for stores in [false, true] {
            fault_beside_a_mapping(&c, &f, stores);
        }
    }
}

/// A write that faults half way leaves mappings as the file.
fn fault_beside_a_mapping(c: &Container, f: &File<'_>, stores: bool) {
    const LEN: usize = 2 << 20;
    const REACHABLE: usize = 4096;
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let base = unsafe { mmap_anonymous(core::ptr::null_mut(), 2 * REACHABLE, prot, flags) };
    let base = base.expect("mmap");
    let second = base.wrapping_byte_add(REACHABLE);
    // SAFETY: nothing refers to the second page.
    unsafe { mprotect(second, REACHABLE, MprotectFlags::empty()) }.expect("mprotect");
    f.pwrite(&[7; LEN], 0).expect("write");
    let map = Map::new(&c.dfs, f.ofd, stores, 0, LEN);
    let iov = [IoVec {
        base: base.cast(),
        len: 2 * REACHABLE,
    }];
    // SAFETY: the pages are only read, as far as they may be.
    let wrote = unsafe { c.dfs.pwrite(f.ofd, &iov, 5000, false) };
    assert_eq!(wrote, Ok(REACHABLE), "{}", c.label);
    let seen = map.get(0, LEN).expect("mapped");
    assert!(seen == f.content(), "{} {stores}", c.label);
    map.unmap();
    c.dfs.map_end(f.ino).expect("map_end");
    assert!(seen == f.content(), "{} {stores}", c.label);
    // SAFETY: the mapping is this function's own.
    unsafe { munmap(base, 2 * REACHABLE) }.expect("munmap");
}
