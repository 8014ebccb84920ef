//! Data of files: reading, writing, truncating, space, against a model, a kernel file and itself.

mod support;

use support::{Container, O_APPEND, O_RDONLY, O_RDWR, O_WRONLY, ROOT, containers};
use sys::Errno;

#[test]
fn what_is_written_is_read() {
    for c in containers(512) {
        let name = &c.label;
        let f = c.file("f", O_RDWR);
        assert_eq!(f.write(b"hello"), Ok(5), "{name}");
        assert_eq!(f.write(b" world"), Ok(6));
        assert_eq!(f.content(), b"hello world");
        let big: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        assert_eq!(f.pwrite(&big, 10_000), Ok(big.len()));
        let content = f.content();
        assert_eq!(content.len(), 10_000 + big.len());
        assert_eq!(&content[..11], b"hello world");
        assert!(content[11..10_000].iter().all(|b| *b == 0));
        assert!(content[10_000..] == big[..], "{name}");
        assert_eq!(c.dfs.seek(f.ofd, 0, 0), Ok(0));
        let mut part = [0; 8];
        assert_eq!(f.read(&mut part), Ok(8));
        assert_eq!(&part, b"hello wo");
        assert_eq!(f.read(&mut part), Ok(8));
        assert_eq!(&part[..3], b"rld");
    }
}

#[test]
fn errors_are_linux_errors() {
    let c = Container::new(daos_types::ObjectClass::S1, 64);
    let f = c.file("f", O_RDONLY);
    assert_eq!(f.write(b"x"), Err(Errno::EBADF));
    let w = c.file("f", O_WRONLY);
    assert_eq!(w.read(&mut [0; 4]), Err(Errno::EBADF));
    assert_eq!(w.pwrite(b"x", u64::MAX), Err(Errno::EINVAL));
    assert_eq!(w.pwrite(b"x", i64::MAX as u64), Err(Errno::EINVAL));
    assert_eq!(c.dfs.ftruncate(w.ofd, 1 << 63), Err(Errno::EFBIG));
    assert_eq!(c.dfs.ftruncate(f.ofd, 5), Err(Errno::EINVAL));
    assert_eq!(c.dfs.seek(w.ofd, -1, 0), Err(Errno::EINVAL));
    assert_eq!(c.dfs.seek(w.ofd, 0, 4), Err(Errno::ENXIO));
    assert_eq!(c.dfs.fallocate(w.ofd, 8, 0, 4096), Err(Errno::EOPNOTSUPP));
    let root = c.dfs.open(&ROOT, c.dfs.root(), 0).expect("open");
    let iov = dfs::IoVec {
        base: core::ptr::null_mut(),
        len: 0,
    };
    // SAFETY: nothing is transferred.
    assert_eq!(unsafe { c.dfs.read(root, &[iov]) }, Err(Errno::EISDIR));
    assert_eq!(
        c.dfs.open(&ROOT, c.dfs.root(), O_WRONLY),
        Err(Errno::EISDIR)
    );
    c.dfs.ofd_release(root).expect("release");
}

#[test]
fn the_largest_file_is_sparse() {
    for c in containers(64) {
        let name = &c.label;
        let f = c.file("f", O_RDWR);
        let last = i64::MAX as u64 - 3;
        assert_eq!(f.pwrite(b"ends", last - 1), Ok(4), "{name}");
        assert_eq!(f.size(), i64::MAX as u64);
        let mut part = [1; 8];
        assert_eq!(f.pread(&mut part, last - 5), Ok(8));
        assert_eq!(&part, b"\0\0\0\0ends");
        assert_eq!(f.pwrite(b"toolong", last + 1), Err(Errno::EINVAL));
        assert_eq!(c.dfs.seek(f.ofd, 0, 3), Ok((last - 1) / 4096 * 4096));
        c.dfs.ftruncate(f.ofd, 0).expect("truncate");
        assert_eq!(c.dfs.stat(f.ino).expect("stat").blocks, 0);
    }
}

/// The block that the largest offset lies in is one byte short.
#[test]
fn the_largest_file_is_cut_and_grown_by_a_byte() {
    for c in containers(64) {
        let f = c.file("f", O_RDWR);
        let largest = i64::MAX as u64;
        assert_eq!(f.pwrite(b"x", largest - 1), Ok(1), "{}", c.label);
        for size in [largest, largest - 1, largest - 1, largest] {
            assert_eq!(c.dfs.ftruncate(f.ofd, size), Ok(()), "{}", c.label);
            assert_eq!(f.size(), size);
        }
        let mut byte = [1; 1];
        assert_eq!(f.pread(&mut byte, largest - 1), Ok(1));
        assert_eq!(byte, [0]);
    }
}

/// Space that is not there is refused before any is taken, or else given back.
#[test]
fn a_failed_fallocate_takes_nothing() {
    for c in containers(64) {
        let name = &c.label;
        let copies = match name.as_str() {
            "RP_2GX" => 2,
            "RP_3GX" => 3,
            _ => 1,
        };
        let f = c.file("f", O_RDWR);
        // Far away, so that the number of blocks the file has does not tell what is missing.
        let far = 1 << 40;
        assert_eq!(c.dfs.fallocate(f.ofd, 1, far, 1000 * 4096), Ok(()));
        assert_eq!(f.pwrite(b"data", 300 * 4096), Ok(4));
        assert_eq!(c.dfs.fallocate(f.ofd, 1, 500 * 4096, 100 * 4096), Ok(()));
        let (size, blocks) = (f.size(), c.dfs.stat(f.ino).expect("stat").blocks);
        let statfs = c.dfs.statfs().expect("statfs");
        let slightly_more = (statfs.bfree / copies + 500) * 4096;
        for len in [statfs.blocks * 2 * 4096, slightly_more] {
            let refused = c.dfs.fallocate(f.ofd, 0, 0, len as i64);
            assert_eq!(refused, Err(Errno::ENOSPC), "{name}");
            assert_eq!(c.dfs.stat(f.ino).expect("stat").blocks, blocks, "{name}");
            assert_eq!(f.size(), size);
            let other = c.file("other", O_RDWR);
            assert_eq!(other.pwrite(&[1; 1 << 20], 0), Ok(1 << 20), "{name}");
            c.dfs.unlink(&ROOT, c.dfs.root(), b"other").expect("unlink");
        }
        let mut part = [0; 4];
        assert_eq!(f.pread(&mut part, 300 * 4096), Ok(4));
        assert_eq!(&part, b"data");
        c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
    }
}

#[test]
fn space_is_given_around_data_that_lies_behind_a_hole() {
    for c in containers(64) {
        let f = c.file("f", O_RDWR);
        for block in [200, 700, 701] {
            assert_eq!(f.pwrite(b"data", block * 4096), Ok(4));
        }
        let whole = 1000 * 4096;
        c.dfs.fallocate(f.ofd, 0, 0, whole).expect("fallocate");
        assert_eq!(f.size(), whole as u64);
        assert_eq!(c.dfs.stat(f.ino).expect("stat").blocks, 8000, "{}", c.label);
        let mut part = [0; 4];
        assert_eq!(f.pread(&mut part, 700 * 4096), Ok(4));
        assert_eq!(&part, b"data");
    }
}

#[test]
fn appends_go_to_the_end() {
    let c = Container::new(daos_types::ObjectClass::S1, 64);
    let a = c.file("f", O_WRONLY | O_APPEND);
    let b = c.file("f", O_WRONLY | O_APPEND);
    a.write(b"one").expect("write");
    b.write(b"two").expect("write");
    a.pwrite(b"three", 0).expect("write");
    let r = c.file("f", O_RDONLY);
    assert_eq!(r.content(), b"onetwothree");
}

/// On a pool without a free block a file is cut within a block, also to the length that it has, and what
/// was cut off does not come back.
#[test]
fn a_full_pool_cuts_files() {
    for c in containers(64) {
        let name = &c.label;
        let f = c.file("f", O_RDWR);
        assert_eq!(f.pwrite(&[7; 10_000], 0), Ok(10_000), "{name}");
        let filler = c.file("filler", O_RDWR | O_APPEND);
        let fill = |len: usize| while filler.write(&vec![1; len]).is_ok() {};
        for len in [1 << 20, 1 << 16, 4096] {
            fill(len);
        }
        for size in [10_000, 9_000, 5_000, 5_000, 100] {
            assert_eq!(c.dfs.ftruncate(f.ofd, size), Ok(()), "{name}");
            // What it has given back is taken.
            fill(4096);
        }
        assert_eq!(c.dfs.ftruncate(f.ofd, 12_000), Ok(()), "{name}");
        let content = f.content();
        assert!(content[..100].iter().all(|b| *b == 7), "{name}");
        assert!(content[100..].iter().all(|b| *b == 0), "{name}");
        assert_eq!(content.len(), 12_000);
        c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
        c.dfs
            .unlink(&ROOT, c.dfs.root(), b"filler")
            .expect("unlink");
    }
}
