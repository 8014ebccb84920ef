//! Directories: entries in chunks of 64-byte granules, found through a hash table.
//!
//! An entry never moves while it lives, so its position is a cookie that stays valid under change.
//! The first chunk is a small record made with the first entry; further chunks are pages in a
//! doubly linked chain with rising ordinals; any but the last is freed when it runs empty. Beyond
//! the first chunk a hash table (volatile, rebuilt when missing) finds entries.
//!
//! Readers take no lock: they read an entry, then check that it, and the link that led to it, are
//! still what they were. Writers hold the target lock of the directory and order their words so
//! that an entry is complete before anything leads to it.

mod chunk;
mod dirread;
mod edit;
mod find;
mod name;
mod table;

pub(crate) use dirread::entries;
pub use dirread::{DirCursor, Dirent};
pub(crate) use edit::{NewEntry, clear, drop_table, grow, insert, remove, replace, tidy};
pub(crate) use find::{Found, find, find_at, find_locked, name_of};
pub(crate) use name::{hash, packed};

#[cfg(test)]
mod tests;

/// Longest name, bytes (`NAME_MAX`).
pub(crate) const NAME_MAX: usize = 255;

/// How often a reader starts over beside busy writers before it takes the lock.
const TRIES: usize = 64;
