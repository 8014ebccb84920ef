//! Names as words: packing, hashing, comparing.

use super::NAME_MAX;
use engine::Pool;
use sys::Result;

/// Words of the longest name.
pub(super) const NAME_WORDS: usize = NAME_MAX.div_ceil(8);

/// Up to eight bytes as a word, zero-padded; the first byte is the lowest.
#[inline]
pub(crate) fn packed(piece: &[u8]) -> u64 {
    if let Some(whole) = piece.first_chunk::<8>() {
        return u64::from_le_bytes(*whole);
    }
    // The last bytes are put over the first where the two overlap: they are the same there.
    let shift = |width: usize| (piece.len() - width) * 8;
    if let (Some(low), Some(high)) = (piece.first_chunk::<4>(), piece.last_chunk::<4>()) {
        let (low, high) = (u32::from_le_bytes(*low), u32::from_le_bytes(*high));
        return u64::from(low) | u64::from(high) << shift(4);
    }
    if let (Some(low), Some(high)) = (piece.first_chunk::<2>(), piece.last_chunk::<2>()) {
        let (low, high) = (u16::from_le_bytes(*low), u16::from_le_bytes(*high));
        return u64::from(low) | u64::from(high) << shift(2);
    }
    piece.first().copied().map_or(0, u64::from)
}

/// Hash of a name. Part of the stored format: entries carry it.
#[inline]
pub(crate) fn hash(name: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x9FB2_1C65_1E98_DF25;
    let mut state = (name.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for piece in name.chunks(8) {
        state = (state ^ packed(piece)).wrapping_mul(MULTIPLIER);
        state ^= state >> 32;
    }
    state.wrapping_mul(MULTIPLIER).wrapping_shr(32) as u32
}

/// Does the name stored from `offset` on equal `name`? The lengths were compared before.
#[inline]
pub(super) fn equals(pool: &Pool, offset: u64, name: &[u8]) -> Result<bool> {
    let mut place = offset;
    for piece in name.chunks(8) {
        if pool.load(place)? != packed(piece) {
            return Ok(false);
        }
        place += 8;
    }
    Ok(true)
}

/// A name copied out of an entry.
pub(super) struct Copied {
    bytes: [u8; NAME_WORDS * 8],
    len: usize,
}

impl Copied {
    /// An empty name.
    pub(super) const fn new() -> Copied {
        Copied {
            bytes: [0; NAME_WORDS * 8],
            len: 0,
        }
    }

    /// Copies `len` bytes stored from `offset` on.
    pub(super) fn read(&mut self, pool: &Pool, offset: u64, len: usize) -> Result<()> {
        self.len = len.min(NAME_MAX);
        let pieces = self.bytes[..self.len.div_ceil(8) * 8].chunks_exact_mut(8);
        for (place, piece) in (offset..).step_by(8).zip(pieces) {
            piece.copy_from_slice(&pool.load(place)?.to_le_bytes());
        }
        Ok(())
    }

    /// The name.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
