//! Mappings of which only a part is copied or brought home, and what happens beside that.

mod support;

use daos_types::ObjectClass;
use support::map::{Map, cache_bytes, cache_files};
use support::{Container, O_RDWR, containers};
use sys::uaccess;

#[test]
fn only_what_is_mapped_is_copied() {
    const MIB: usize = 1 << 20;
    uaccess::install().expect("install");
    for c in containers(256) {
        let f = c.file("f", O_RDWR);
        let mut model: Vec<u8> = (0..24 * MIB).map(|i| (i / 4096 % 251) as u8).collect();
        f.write(&model).expect("write");
        let map = Map::new(&c.dfs, f.ofd, true, 10 * MIB as u64, 4096);
        assert_eq!(cache_bytes(&c), 2 * MIB as u64);
        map.put(100, b"stored");
        model[10 * MIB + 100..][..6].copy_from_slice(b"stored");
        // Reading across what is copied and what is not.
        let mut part = vec![0; 5 * MIB];
        assert_eq!(f.pread(&mut part, 9 * MIB as u64 + 5), Ok(5 * MIB));
        assert!(part[..] == model[9 * MIB + 5..][..5 * MIB], "{}", c.label);
        // Written before it is copied, and over the border.
        for at in [2 * MIB - 3000, 11 * MIB, 12 * MIB - 7, 20 * MIB + 1] {
            f.pwrite(&[0xee; 9000], at as u64).expect("write");
            model[at..at + 9000].fill(0xee);
        }
        c.dfs
            .fallocate(f.ofd, 3, 12 * MIB as i64 - 5000, 10_000)
            .expect("punch");
        model[12 * MIB - 5000..][..10_000].fill(0);
        c.dfs.fsync(f.ofd).expect("fsync");
        let wide = Map::new(&c.dfs, f.ofd, true, 0, 24 * MIB);
        assert!(
            wide.get(0, 24 * MIB).expect("mapped") == model,
            "{}",
            c.label
        );
        wide.put(23 * MIB, b"too");
        model[23 * MIB..][..3].copy_from_slice(b"too");
        assert!(f.content() == model);
        // A hole that is mapped beyond the end, and then written.
        let beyond = Map::new(&c.dfs, f.ofd, true, 40 * MIB as u64, 4096);
        c.dfs.ftruncate(f.ofd, 41 * MIB as u64).expect("truncate");
        f.pwrite(b"beyond", 40 * MIB as u64).expect("write");
        assert_eq!(beyond.get(0, 6).expect("mapped"), b"beyond");
        model.resize(41 * MIB, 0);
        model[40 * MIB..][..6].copy_from_slice(b"beyond");
        for map in [map, wide, beyond] {
            map.end(&c.dfs, f.ino);
        }
        assert_eq!(cache_files(&c), 0);
        assert!(f.content() == model, "{}", c.label);
    }
}

#[test]
fn huge_files_can_be_mapped() {
    uaccess::install().expect("install");
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    for shift in [40, 62] {
        let at = 1u64 << shift;
        f.pwrite(b"far", at).expect("write");
        let map = Map::new(&c.dfs, f.ofd, true, at, 4096);
        assert_eq!(map.get(0, 3).expect("mapped"), b"far");
        map.put(1, b"e");
        map.end(&c.dfs, f.ino);
        let mut back = [0; 3];
        assert_eq!(f.pread(&mut back, at), Ok(3));
        assert_eq!(&back, b"fer");
    }
    // What is mapped of it is far more than can be mapped at a time.
    let (at, far) = (1 << 62, 1 << 56);
    f.pwrite(b"further", at + far).expect("write");
    let map = Map::new(&c.dfs, f.ofd, true, at, 4096);
    map.put(1, b"a");
    c.dfs.fsync(f.ofd).expect("fsync");
    map.unmap();
    c.dfs.map_unsure(f.ino).expect("map_unsure");
    c.dfs.map_end(f.ino).expect("map_end");
    assert_eq!(cache_files(&c), 0);
    let mut back = [0; 3];
    assert_eq!(f.pread(&mut back, at), Ok(3));
    assert_eq!(&back, b"far");
}

#[test]
fn syncs_beside_the_end_of_a_mapping_succeed() {
    uaccess::install().expect("install");
    let c = Container::new(ObjectClass::S1, 64);
    let f = c.file("f", O_RDWR);
    f.write(&[7; 8192]).expect("write");
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                c.dfs.fsync(f.ofd).expect("fsync");
            }
        });
        for turn in 0..3000u32 {
            let map = Map::new(&c.dfs, f.ofd, true, 0, 8192);
            map.put(4096, &turn.to_le_bytes());
            map.end(&c.dfs, f.ino);
            assert_eq!(f.content()[4096..4100], turn.to_le_bytes());
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(cache_files(&c), 0);
}

#[test]
fn a_write_beside_a_sync_is_not_undone() {
    uaccess::install().expect("install");
    for c in containers(256) {
        let f = c.file("f", O_RDWR);
        f.write(&vec![0; 64 << 10]).expect("write");
        let map = Map::new(&c.dfs, f.ofd, true, 0, 64 << 10);
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut turn = 0u8;
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    turn = turn.wrapping_add(1);
                    map.put(8192 + 100, &[turn; 8]);
                    c.dfs.map_sync(f.ino, 0, 64 << 10, false).expect("sync");
                }
            });
            for turn in 0..3000u32 {
                f.pwrite(&turn.to_le_bytes(), 8192 + 4000).expect("write");
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let stored = map.get(8192 + 100, 8).expect("mapped");
        map.end(&c.dfs, f.ino);
        let content = f.content();
        assert_eq!(
            content[8192 + 4000..][..4],
            2999u32.to_le_bytes(),
            "{}",
            c.label
        );
        assert_eq!(content[8192 + 100..][..8], stored[..], "{}", c.label);
    }
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
        // Too small to have more copied for them than they show.
        f.write(&vec![8; LEN]).expect("write");
        for len in [(1 << 20) - 4096, 8192] {
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
    c.dfs.depart().expect("depart");
    assert_eq!(cache_files(&c), 0);
    let f = c.file("f", O_RDWR);
    assert_eq!(f.content()[5000..5005], *b"first");
    assert_eq!(f.content()[6000..6006], *b"second");
    assert_eq!(f.content()[7000..7005], *b"third");
}

#[test]
fn what_is_to_be_synced_does_not_look_like_what_is_mapped() {
    uaccess::install().expect("install");
    for c in containers(256) {
        let f = c.file("f", O_RDWR);
        f.write(&vec![7; 8 << 20]).expect("write");
        c.dfs.fsync(f.ofd).expect("fsync");
        let end = Map::new(&c.dfs, f.ofd, true, 4 << 20, 64 << 10);
        for pos in [100, 6 << 20, 3 << 20] {
            f.pwrite(b"new", pos).expect("write");
        }
        let start = Map::new(&c.dfs, f.ofd, true, 0, 64 << 10);
        assert_eq!(start.get(98, 7).expect("mapped"), b"\x07\x07new\x07\x07");
        c.dfs.fsync(f.ofd).expect("fsync");
        assert_eq!(start.get(5000, 1).expect("mapped"), [7]);
        start.end(&c.dfs, f.ino);
        end.end(&c.dfs, f.ino);
        assert_eq!(f.content()[98..105], *b"\x07\x07new\x07\x07");
    }
}
