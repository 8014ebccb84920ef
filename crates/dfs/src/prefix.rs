//! What paths up to their last slash lead to, remembered by each thread.
//!
//! An entry holds for one state of the tree ([`engine::TREE_VERSION`]): that word changes with
//! everything that could make a path of directories lead elsewhere or be forbidden, which is the
//! renaming of a directory and a change of its mode or owner. It is odd while such a change is
//! being applied; whoever is killed meanwhile leaves it odd until the change is complete. A
//! directory that was removed shows that itself. So an entry is exact, not merely recent.

use crate::dir::packed;
use crate::inode::{at, from_link, link_word, locate, low, pair, word};
use crate::{Cred, Dfs, Ino};
use core::sync::atomic::{AtomicU64, Ordering};
use engine::{Pool, TREE_VERSION, Tx};
use sys::Result;

/// Longest prefix that is remembered, bytes.
const TEXT_BYTES: usize = 112;
/// Words that must be the same: state of the tree, start, ids, groups, lengths.
const KEY_WORDS: usize = 5;
/// Words of an entry: the key, what it leads to, the text.
const ENTRY_WORDS: usize = KEY_WORDS + 1 + TEXT_BYTES / 8;
/// Entries of a thread.
const ENTRIES: usize = 64;
/// The thread's word that counts changes of its entries, odd while one is being made: a signal handler
/// that walks meanwhile finds and changes none, and whoever looks at one sees that a handler has come
/// and gone.
const CHANGES: usize = ENTRIES * ENTRY_WORDS;
const _: () = assert!(CHANGES < engine::THREAD_WORDS);

/// A path up to its last slash, as somebody walks it.
pub(crate) struct Prefix<'a> {
    entry: &'static [AtomicU64],
    changes: &'static AtomicU64,
    key: [u64; KEY_WORDS],
    text: &'a [u8],
}

/// Bytes of a path up to its last slash, that included.
pub(crate) fn len(path: &[u8]) -> usize {
    path.iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1)
}

/// One word for whatever else decides what somebody may search.
fn rights(cred: &Cred<'_>) -> u64 {
    if cred.privileged {
        return 1;
    }
    cred.groups.iter().fold(2, |state, group| {
        engine::place::mix(state ^ u64::from(*group))
    })
}

impl<'a> Prefix<'a> {
    /// The prefix of a path, if it has one that can be remembered.
    #[inline]
    pub(crate) fn of(dfs: &Dfs, cred: &Cred<'_>, from: Ino, path: &'a [u8]) -> Option<Prefix<'a>> {
        let text = path.get(..len(path))?;
        if text.is_empty() || text.len() == path.len() || text.len() > TEXT_BYTES {
            return None;
        }
        let version = dfs.pool.load(TREE_VERSION).ok()?;
        if version & 1 != 0 {
            return None;
        }
        let key = [
            version + 2,
            link_word(from),
            pair(cred.uid, cred.gid),
            rights(cred),
            dfs.pool.number() << 32 | text.len() as u64,
        ];
        let end = packed(&text[text.len().saturating_sub(8)..]);
        let spread = engine::place::mix(end ^ key[1].rotate_left(8) ^ key[2].rotate_left(16));
        let first = spread as usize % ENTRIES * ENTRY_WORDS;
        let words = engine::thread_words().ok()?;
        Some(Prefix {
            entry: words.get(first..first + ENTRY_WORDS)?,
            changes: words.get(CHANGES)?,
            key,
            text,
        })
    }

    /// The directory the prefix is known to lead to.
    #[inline]
    pub(crate) fn find(&self, pool: &Pool) -> Option<Ino> {
        let (key, rest) = self.entry.split_at(KEY_WORDS);
        let (dir, text) = rest.split_first()?;
        let same = |(word, value): (&AtomicU64, u64)| word.load(Ordering::Acquire) == value;
        let before = self.changes.load(Ordering::Acquire);
        let known = key.iter().zip(self.key).all(same)
            && text.iter().zip(self.text.chunks(8).map(packed)).all(same);
        let dir = dir.load(Ordering::Acquire);
        if !known || before & 1 != 0 || self.changes.load(Ordering::Relaxed) != before {
            return None;
        }
        let dir = from_link(dir)?;
        let offset = locate(pool, dir).ok()?;
        let named = low(pool.load(at(offset, word::MODE)).ok()?) != 0;
        named.then_some(dir)
    }

    /// Remembers what the prefix has led to. The state of the tree is that from before the walk.
    pub(crate) fn remember(&self, dir: Ino) {
        let (key, rest) = self.entry.split_at(KEY_WORDS);
        let Some((to, text)) = rest.split_first() else {
            return;
        };
        let before = self.changes.load(Ordering::Acquire);
        if before & 1 != 0 {
            return;
        }
        let set = |word: &AtomicU64, value| word.store(value, Ordering::Release);
        set(self.changes, before.wrapping_add(1));
        // Whoever is killed in here leaves no entry: there is none until the version is there.
        set(&key[0], 0);
        for (word, value) in text.iter().zip(self.text.chunks(8).map(packed)) {
            set(word, value);
        }
        set(to, link_word(dir));
        for (word, value) in key.iter().zip(self.key).rev() {
            set(word, value);
        }
        set(self.changes, before.wrapping_add(2));
    }
}

/// Notes that the transaction, which holds the rename lock, is about to change where paths lead:
/// before the first word it sets.
pub(crate) fn change_begins(tx: &mut Tx<'_>) -> Result<()> {
    let version = tx.load(TREE_VERSION)?;
    tx.set_volatile(TREE_VERSION, version | 1)
}

/// Notes that it has set the last one.
pub(crate) fn change_ends(tx: &mut Tx<'_>) -> Result<()> {
    let version = tx.load(TREE_VERSION)?;
    tx.set_volatile(TREE_VERSION, (version | 1).wrapping_add(1))
}
