//! What the log proves about data, piece by piece.

use super::*;
use rustix::fs::{MemfdFlags, memfd_create};

const SIZE: usize = BLOCK as usize;

fn claim(block: u64, content: u8, before: u64) -> Claim {
    Claim {
        at: BlockPtr::new(0, block, 1),
        sum: u64::from(crc32fast::hash(&[content; SIZE])),
        before,
    }
}

/// A file whose blocks hold 1, 2, 3, and half a block.
fn file() -> OwnedFd {
    let file = memfd_create("blocks", MemfdFlags::CLOEXEC).expect("memory");
    let bytes: Vec<u8> = (1..=3).flat_map(|byte| [byte; SIZE]).collect();
    for (off, bytes) in [(0, &bytes[..]), (bytes.len(), &[4; SIZE / 2])] {
        let wrote = rustix::io::pwrite(&file, bytes, off as u64).expect("write");
        assert_eq!(wrote, bytes.len());
    }
    file
}

#[test]
fn a_bad_block_does_not_take_its_neighbours_with_it() {
    let mut proofs = Proofs::default();
    let part = [
        claim(0, 1, 100),
        claim(1, 9, 100),
        claim(1, 2, 50),
        claim(1, 2, 70),
        claim(2, 3, 100),
        claim(3, 4, 100),
        claim(4, 0, 100),
    ];
    let mut content = vec![0; CLAIMED_AT_ONCE * SIZE];
    proofs.check_part(&file(), &part, &mut content);
    let known = |block| proofs.sums.get(&BlockPtr::new(0, block, 1).0).copied();
    // Of a block that was claimed more than once what was so last counts.
    let expected = [Some(100), Some(70), Some(100), None, None];
    assert_eq!([0, 1, 2, 3, 4].map(known), expected);
}

#[test]
fn what_a_flush_covers_is_not_read() {
    let proofs = Proofs {
        flushes: Flushes {
            flushed: vec![200, 0],
            begins: Vec::new(),
        },
        ..Proofs::default()
    };
    let other = BlockPtr::new(1, 7, 1).0;
    let gone = BlockPtr::new(2, 7, 1).0;
    let own = BlockPtr::new(0, 7, 1).0;
    // The first is of the record's own time, the others of before 150.
    let mut words = vec![0; RECORD_HEADER];
    words.extend([own, 1, BlockPtr::HOLE.0, 150, own, 2, other, 3, gone, 4]);
    let found = Found {
        kind: RecordKind::Sums as u8,
        position: 300,
        words: &words,
    };
    let mut claims = Vec::new();
    proofs.add_claims(&found, &mut claims).expect("claims");
    let found: Vec<_> = claims.iter().map(|c| (c.at.0, c.sum, c.before)).collect();
    assert_eq!(found, [(own, 1, 300), (other, 3, 150)]);
}

#[test]
fn a_pointer_used_twice_leads_to_what_it_replaced_last() {
    let mut proofs = Proofs {
        flushes: Flushes {
            flushed: vec![0],
            begins: Vec::new(),
        },
        ..Proofs::default()
    };
    let [first, second, third] = [1, 2, 3].map(|block| BlockPtr::new(0, block, 1).0);
    for (position, old, new) in [
        (10, first, second),
        (20, second, third),
        (30, third, second),
    ] {
        // All data is there.
        proofs.contents.insert(place(BlockPtr(new)), u64::MAX);
        proofs.choose(position, &[old], &mut [new]);
    }
    let back = |position| proofs.step_back(&[second], position);
    assert_eq!(back(40), Some((vec![third], 30)));
    assert_eq!(back(30), Some((vec![first], 10)));
    assert_eq!(back(10), None);
}
