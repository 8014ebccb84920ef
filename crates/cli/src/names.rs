//! How commands name pools and containers: by position, by `--pool=`/`--cont=`, by environment.

use crate::output::Failure;
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A non-empty environment variable as text.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `[POOL]` or `--pool=POOL`, else `$DAOS_POOL`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PoolArg {
    /// Pool label or UUID (default: $DAOS_POOL)
    #[arg(value_name = "pool label or UUID")]
    position: Option<String>,
    /// Pool label or UUID
    #[arg(long = "pool", value_name = "POOL")]
    pool: Option<String>,
}

impl PoolArg {
    /// The pool, or the error of DAOS for none.
    pub(crate) fn name(self) -> Result<String, Failure> {
        self.with_rest().map(|(name, _)| name)
    }

    /// The pool, which has to be named on the command line.
    pub(crate) fn named(self) -> Result<String, Failure> {
        if self.pool.is_none() && self.position.is_none() {
            return Err(unnamed("pool UUID or label"));
        }
        self.name()
    }

    /// The pool, and the positional argument if the pool was given by flag.
    pub(crate) fn with_rest(self) -> Result<(String, Option<String>), Failure> {
        match (self.pool, self.position) {
            (Some(pool), rest) => Ok((pool, rest)),
            (None, Some(pool)) => Ok((pool, None)),
            (None, None) => match env("DAOS_POOL") {
                Some(pool) => Ok((pool, None)),
                None => Err(Failure::plain(
                    "failed to connect to pool <no label or uuid set>: \
                     no pool UUID or label supplied",
                )
                .because("name a pool or set DAOS_POOL; see: daos pool list")),
            },
        }
    }
}

/// `[POOL] [CONT]`, `--pool=` and `--cont=`, else `$DAOS_POOL` and `$DAOS_CONT`, with further
/// positional arguments behind them.
#[derive(Args, Clone, Debug)]
pub(crate) struct ContArgs {
    /// Pool and container (labels or UUIDs; default: $DAOS_POOL and $DAOS_CONT), then what the
    /// command works on
    #[arg(value_name = "pool container ...")]
    positions: Vec<OsString>,
    /// Pool label or UUID
    #[arg(long = "pool", value_name = "POOL")]
    pool: Option<String>,
    /// Container label or UUID
    #[arg(long = "cont", alias = "container", value_name = "CONT")]
    cont: Option<String>,
    /// Path in a mounted container
    #[arg(long = "path", value_name = "PATH")]
    path: Option<String>,
}

/// A container as named, and the arguments behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ContNames {
    /// Pool.
    pub(crate) pool: String,
    /// Container.
    pub(crate) cont: String,
    /// Further positional arguments; names of files may be any bytes.
    pub(crate) rest: Vec<OsString>,
}

impl ContNames {
    /// The first further argument, which has to be text.
    pub(crate) fn text(&self) -> Result<Option<String>, Failure> {
        let first = self.rest.first();
        let text = |word: &OsString| match word.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(Failure::usage(format!("{word:?} is not UTF-8"))),
        };
        first.map(text).transpose()
    }
}

/// A label or UUID; what is no text is neither, and refused as such later.
fn label(word: OsString) -> String {
    word.to_string_lossy().into_owned()
}

fn has_slash(word: &OsStr) -> bool {
    word.as_bytes().contains(&b'/')
}

fn no_container() -> Failure {
    Failure::plain("no container label or UUID supplied")
        .because("name pool and container, or set DAOS_POOL and DAOS_CONT")
}

/// What is destroyed is named: an empty variable on the command line must not stand for the
/// environment's.
fn unnamed(what: &str) -> Failure {
    Failure::plain(format!("no {what} supplied"))
        .because("what is to be destroyed has to be named; the environment does not count")
}

impl ContArgs {
    /// Splits the arguments of a command that destroys the container.
    pub(crate) fn named(self) -> Result<ContNames, Failure> {
        let given = usize::from(self.pool.is_none()) + usize::from(self.cont.is_none());
        if self.cont.is_none() && self.positions.len() < given {
            return Err(unnamed("container label or UUID"));
        }
        self.split(0, 0)
    }

    /// Splits the arguments; between `least` and `most` stand behind the container.
    pub(crate) fn split(self, least: usize, most: usize) -> Result<ContNames, Failure> {
        if self.path.is_some() {
            return Err(Failure::usage(
                "--path is not served yet; name pool and container instead",
            ));
        }
        let mut positions = self.positions;
        let given = usize::from(self.pool.is_none()) + usize::from(self.cont.is_none());
        let fallback = |flag: &Option<String>, name: &str| flag.clone().or_else(|| env(name));
        // No label has a slash: what looks like a path is one, and the names come from elsewhere.
        let paths_only = positions.iter().take(given).any(|word| has_slash(word));
        let (pool, cont) = if positions.len() >= given + least && !paths_only {
            let mut front = positions.drain(..given);
            let pool = self.pool.or_else(|| front.next().map(label));
            (pool, self.cont.or_else(|| front.next().map(label)))
        } else if positions.len() >= least
            && self.pool.is_none()
            && self.cont.is_none()
            && !paths_only
        {
            // One name too few: the genuine reading is POOL first, so the container is missing.
            let typed = (positions.len() > least).then(|| label(positions.remove(0)));
            (typed.or_else(|| env("DAOS_POOL")), env("DAOS_CONT"))
        } else {
            (
                fallback(&self.pool, "DAOS_POOL"),
                fallback(&self.cont, "DAOS_CONT"),
            )
        };
        let (Some(pool), Some(cont)) = (pool, cont) else {
            let few = least > 0 && positions.len() + 1 >= given;
            let usage = || Failure::usage("too few arguments; see --help");
            return Err(if few { usage() } else { no_container() });
        };
        if positions.len() < least {
            return Err(Failure::usage("too few arguments; see --help"));
        }
        if let Some(extra) = positions.get(most) {
            return Err(Failure::usage(format!("unexpected argument {extra:?}")));
        }
        Ok(ContNames {
            pool,
            cont,
            rest: positions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(positions: &[&str], pool: Option<&str>, cont: Option<&str>) -> ContArgs {
        ContArgs {
            positions: positions.iter().map(|text| (*text).into()).collect(),
            pool: pool.map(str::to_owned),
            cont: cont.map(str::to_owned),
            path: None,
        }
    }

    fn names(pool: &str, cont: &str, rest: &[&str]) -> ContNames {
        let rest = rest.iter().map(|text| (*text).into()).collect();
        ContNames {
            pool: pool.to_owned(),
            cont: cont.to_owned(),
            rest,
        }
    }

    #[test]
    fn positions_and_flags_mix() {
        let split = |args: ContArgs, least, most| args.split(least, most).ok();
        assert_eq!(
            split(args(&["p", "c"], None, None), 0, 0),
            Some(names("p", "c", &[]))
        );
        assert_eq!(
            split(args(&["c"], Some("p"), None), 0, 0),
            Some(names("p", "c", &[]))
        );
        assert_eq!(
            split(args(&["p"], None, Some("c")), 0, 0),
            Some(names("p", "c", &[]))
        );
        assert_eq!(
            split(args(&[], Some("p"), Some("c")), 0, 0),
            Some(names("p", "c", &[]))
        );
        assert_eq!(
            split(args(&["p", "c", "/x"], None, None), 0, 1),
            Some(names("p", "c", &["/x"]))
        );
        assert_eq!(
            split(args(&["/x"], Some("p"), Some("c")), 1, 1),
            Some(names("p", "c", &["/x"]))
        );
        assert_eq!(split(args(&["p", "c", "x"], None, None), 0, 0), None);
        assert_eq!(split(args(&["/x"], Some("p"), None), 0, 1), None);
    }
}
