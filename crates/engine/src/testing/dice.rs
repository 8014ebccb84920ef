//! Choices of tests, by seed.

/// Choices that follow from a seed: splitmix64.
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.number_below(end as u64) as usize
    }

    /// The same of offsets and lengths in files.
    pub fn number_below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }
}
