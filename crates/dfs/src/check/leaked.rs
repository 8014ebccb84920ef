//! Inodes without a name: which of them hang below others.

use super::{Check, Problem};
use crate::inode::{Guard, is_dir};
use crate::{Dfs, Ino, dir};
use std::collections::{HashMap, HashSet};
use sys::Result;

impl Check<'_> {
    /// Reports the tops of what no name leads to, and checks what is below them like the rest.
    pub(super) fn leaks(&mut self, unnamed: Vec<Ino>) -> Result<()> {
        let mut below: HashMap<u64, u32> = HashMap::new();
        let mut dirs = Vec::new();
        for ino in &unnamed {
            if is_dir(Guard::of(self.dfs.pool, *ino)?.mode) {
                dirs.push(*ino);
                for child in self.dfs.children_of(*ino)? {
                    *below.entry(child.number).or_default() += 1;
                }
            }
        }
        let mut done = HashSet::new();
        let tops = unnamed
            .iter()
            .filter(|ino| !below.contains_key(&ino.number));
        // Directories that are still left afterwards hold each other in a ring.
        for top in tops.chain(&dirs) {
            let inodes = self.mark(*top, &mut done)?;
            if inodes > 0 {
                self.found(Problem::Leaked { ino: *top, inodes });
            }
        }
        for ino in &unnamed {
            let guard = Guard::of(self.dfs.pool, *ino)?;
            if let Some(names) = below.get(&ino.number) {
                self.links(*ino, &guard, *names);
            }
        }
        Ok(())
    }

    /// Marks an inode and all below it that no name leads to; returns how many were not marked.
    fn mark(&self, top: Ino, done: &mut HashSet<u64>) -> Result<u64> {
        let mut marked = 0;
        let mut todo = vec![top];
        while let Some(ino) = todo.pop() {
            if self.names.contains_key(&ino.number) || !done.insert(ino.number) {
                continue;
            }
            marked += 1;
            if is_dir(Guard::of(self.dfs.pool, ino)?.mode) {
                todo.extend(self.dfs.children_of(ino)?);
            }
        }
        Ok(marked)
    }
}

impl Dfs {
    /// What the entries of a directory lead to.
    fn children_of(&self, holder: Ino) -> Result<Vec<Ino>> {
        let mut children = Vec::new();
        for (name, ..) in self.entries_of(holder)? {
            if let Some(found) = dir::find(self.pool, holder, &name, dir::hash(&name))?
                && Guard::of(self.pool, found.child()).is_ok()
            {
                children.push(found.child());
            }
        }
        Ok(children)
    }
}
