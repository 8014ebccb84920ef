//! Things that happen at the same time in several threads.

mod support;

use daos_types::ObjectClass;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Container, O_RDONLY, O_RDWR, ROOT};

/// `rename` over a name replaces it in one step: who opens the name finds a file, old or new.
#[test]
fn a_replaced_name_is_never_missing() {
    let container = Container::new(ObjectClass::SX, 64);
    let dfs = &container.dfs;
    let put = |name: &str, byte: u8| {
        let file = container.file(name, O_RDWR);
        assert_eq!(file.pwrite(&[byte; 100], 0), Ok(100));
    };
    put("f", 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        let ofd = loop {
                            let ino = dfs.lookup(&ROOT, dfs.root(), b"f").expect("lookup");
                            match dfs.open(&ROOT, ino, O_RDONLY) {
                                Ok(ofd) => break ofd,
                                // Replaced in between: the caller looks the name up again.
                                Err(errno) => assert_eq!(errno, sys::Errno::ESTALE),
                            }
                        };
                        let mut bytes = [0u8; 101];
                        let iov = [dfs::IoVec {
                            base: bytes.as_mut_ptr(),
                            len: bytes.len(),
                        }];
                        // SAFETY: the buffer is exclusively ours.
                        let read = unsafe { dfs.pread(ofd, &iov, 0) }.expect("read");
                        assert_eq!(read, 100);
                        assert!(bytes[..100].iter().all(|b| *b == bytes[0]), "a torn file");
                        dfs.ofd_release(ofd).expect("release");
                        seen += 1;
                    }
                    seen
                })
            })
            .collect();
        for round in 1..20_000u32 {
            put("tmp", round as u8);
            dfs.rename(&ROOT, dfs.root(), b"tmp", dfs.root(), b"f", 0)
                .expect("rename");
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("reader") > 0);
        }
    });
}

/// Writers that share one description never write over each other.
#[test]
fn one_offset_serves_many_writers() {
    let container = Container::new(ObjectClass::SX, 64);
    let file = container.file("f", O_RDWR);
    let (dfs, ofd) = (&container.dfs, file.ofd);
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            scope.spawn(move || {
                for _ in 0..500 {
                    let bytes = [writer + 1; 64];
                    let iov = [dfs::IoVec {
                        base: bytes.as_ptr().cast_mut(),
                        len: 64,
                    }];
                    // SAFETY: the buffer is only read.
                    assert_eq!(unsafe { dfs.write(ofd, &iov) }, Ok(64));
                }
            });
        }
    });
    let content = file.content();
    assert_eq!(content.len(), 8 * 500 * 64);
    let mut counts = [0; 9];
    for block in content.chunks(64) {
        assert!(block.iter().all(|b| *b == block[0]), "a torn block");
        counts[usize::from(block[0])] += 1;
    }
    assert_eq!(counts, [0, 500, 500, 500, 500, 500, 500, 500, 500]);
}
