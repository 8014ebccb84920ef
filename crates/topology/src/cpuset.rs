//! A set of logical CPUs, in the kernel's list notation (`0-51,104-155`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{TopologyError, one_line};

/// CPU numbers at or above this are refused: Linux on x86-64 is built for at most 8192 CPUs.
pub const CPU_MAX: usize = 8192;

/// A set of logical CPU numbers below [`CPU_MAX`].
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuSet {
    /// 64 CPUs a word; no trailing zero words, so that equal sets compare equal.
    words: Vec<u64>,
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `cpu`; numbers at or above [`CPU_MAX`] are ignored.
    pub fn insert(&mut self, cpu: usize) {
        if cpu >= CPU_MAX {
            return;
        }
        if self.words.len() <= cpu / 64 {
            self.words.resize(cpu / 64 + 1, 0);
        }
        if let Some(word) = self.words.get_mut(cpu / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    /// Removes `cpu`, if it is there.
    pub fn remove(&mut self, cpu: usize) {
        if let Some(word) = self.words.get_mut(cpu / 64) {
            *word &= !(1 << (cpu % 64));
        }
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// Whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: usize) -> bool {
        self.words
            .get(cpu / 64)
            .is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// Number of CPUs in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether the set has no CPU.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| index * 64 + bit)
        })
    }

    /// The lowest CPU.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// CPUs in both sets.
    #[must_use]
    pub fn and(&self, other: &CpuSet) -> CpuSet {
        self.iter().filter(|&cpu| other.contains(cpu)).collect()
    }

    /// Whether the sets share a CPU.
    #[must_use]
    pub fn intersects(&self, other: &CpuSet) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// Parses the kernel's list notation: numbers and ranges, separated by commas, blank for the
    /// empty set.
    ///
    /// # Errors
    /// Names the part that is not a number, a range that runs backwards, or a CPU number at or
    /// above [`CPU_MAX`].
    pub fn parse(list: &str) -> Result<CpuSet, TopologyError> {
        let mut set = CpuSet::new();
        let list = list.trim();
        if list.is_empty() {
            return Ok(set);
        }
        for part in list.split(',') {
            let bad = |why: &str| {
                TopologyError::Syntax(format!("CPU list: \"{}\" {why}", one_line(part.trim())))
            };
            let (low, high) = part
                .trim()
                .split_once('-')
                .unwrap_or((part.trim(), part.trim()));
            let (Some(low), Some(high)) = (number(low), number(high)) else {
                return Err(bad("is not a CPU number or a range of them"));
            };
            if low > high {
                return Err(bad("runs backwards"));
            }
            if high >= CPU_MAX {
                return Err(bad("is beyond the largest CPU number, 8191"));
            }
            (low..=high).for_each(|cpu| set.insert(cpu));
        }
        Ok(set)
    }
}

/// A decimal number without sign or blanks.
fn number(text: &str) -> Option<usize> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        let mut set = CpuSet::new();
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

impl Extend<usize> for CpuSet {
    fn extend<I: IntoIterator<Item = usize>>(&mut self, cpus: I) {
        cpus.into_iter().for_each(|cpu| self.insert(cpu));
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(low) = cpus.next() {
            let mut high = low;
            while cpus.next_if_eq(&(high + 1)).is_some() {
                high += 1;
            }
            match high - low {
                0 => write!(f, "{comma}{low}")?,
                _ => write!(f, "{comma}{low}-{high}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_notation_goes_both_ways() {
        for list in ["", "0", "0-1", "4,9,14", "0-51,104-155", "8191"] {
            assert_eq!(CpuSet::parse(list).unwrap().to_string(), list);
        }
        assert_eq!(CpuSet::parse(" 3 , 1-2\n").unwrap().to_string(), "1-3");
    }

    #[test]
    fn bad_lists_are_named() {
        for list in [
            "x",
            "1-",
            "-1",
            "4-2",
            "1,,2",
            "8192",
            "0-9999999999999999999999",
            "+1",
        ] {
            let error = CpuSet::parse(list).unwrap_err().to_string();
            assert!(error.starts_with("CPU list: \""), "{list}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn equal_after_removal() {
        let mut set = CpuSet::parse("1,700").unwrap();
        set.remove(700);
        assert_eq!(set, CpuSet::parse("1").unwrap());
        assert_eq!(set.len(), 1);
    }
}
