//! Shapes of entries and names.

use super::chunk::{Head, granules};
use super::hash;
use super::name::packed;

#[test]
fn entries_take_one_to_five_granules() {
    assert_eq!(
        [1, 48, 49, 112, 113, 240, 241, 255].map(granules),
        [1, 1, 2, 2, 3, 4, 5, 5]
    );
}

#[test]
fn heads_of_impossible_shape_are_not_live() {
    let head = Head::new(8, 49, 7);
    assert!(head.is_live() && head.granules() == 2 && head.hash() == 7);
    assert!(!Head(head.0 ^ 1 << 32).is_live());
    assert!(!Head(0).is_live());
    assert!(!Head(1 << 56 | 1 << 32).is_live());
}

#[test]
fn packing_pads_with_zeros() {
    assert_eq!(packed(b"ab"), 0x6261);
    assert_eq!(packed(b"abcdefgh"), u64::from_le_bytes(*b"abcdefgh"));
}

#[test]
fn hashes_spread_over_the_low_bits() {
    let mut slots = [0u32; 1024];
    for i in 0..10_240 {
        slots[hash(format!("file{i:06}").as_bytes()) as usize % 1024] += 1;
    }
    let most = slots.iter().max().copied().unwrap_or(0);
    assert!(most < 40, "{most} of 10 on average in one slot");
    assert_ne!(hash(b"a"), hash(b"a\0"));
}
