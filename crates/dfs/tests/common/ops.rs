//! Operations on paths, what they answer, and how to draw them at random.

use proptest::prelude::*;

/// One call on paths. Paths are relative to the root of the tree.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// `open(O_RDONLY|O_CREAT)`, perhaps with `O_EXCL`.
    Create {
        path: String,
        mode: u32,
        exclusive: bool,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    /// FIFOs, sockets, devices.
    Mknod {
        path: String,
        mode: u32,
        rdev: u64,
    },
    Symlink {
        target: String,
        path: String,
    },
    Link {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        flags: u32,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Chown {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
        follow: bool,
    },
    /// Both times in ns; `None` = now.
    Utimens {
        path: String,
        times: Option<(i64, i64)>,
    },
    Access {
        path: String,
        mask: u32,
    },
    Stat {
        path: String,
        follow: bool,
    },
    Readlink {
        path: String,
    },
    SetXattr {
        path: String,
        name: String,
        value: Vec<u8>,
        flags: u32,
    },
    GetXattr {
        path: String,
        name: String,
    },
    RemoveXattr {
        path: String,
        name: String,
    },
    List {
        path: String,
    },
}

/// What a call answers, as far as file systems must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Failed(sys::Errno),
    Done,
    Stat {
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u64,
        size: u64,
    },
    Bytes(Vec<u8>),
    /// Sorted names with their types.
    Names(Vec<(String, u8)>),
}

impl From<sys::Result<Answer>> for Answer {
    fn from(result: sys::Result<Answer>) -> Answer {
        result.unwrap_or_else(Answer::Failed)
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) groups: &'static [u32],
}

/// The callers drawn from: the privileged one, and two that share a group.
pub(crate) const USERS: [User; 3] = [
    User {
        uid: 0,
        groups: &[],
    },
    User {
        uid: 1000,
        groups: &[2000],
    },
    User {
        uid: 1001,
        groups: &[2000, 1000],
    },
];

/// File creation mask of all callers.
pub(crate) const UMASK: u32 = 0o022;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        30 => prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(String::from),
        1 => Just("n".repeat(255)),
        1 => Just("n".repeat(256)),
        1 => Just("m".repeat(49)),
        2 => Just("..".to_string()),
        1 => Just(".".to_string()),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let slash = prop::sample::select(vec!["", "", "", "", "", "", "", "", "", "", "", "/"]);
    (prop::collection::vec(name(), 1..4), slash).prop_map(|(names, end)| names.join("/") + end)
}

fn mode() -> impl Strategy<Value = u32> {
    let modes = vec![
        0o777, 0o777, 0o755, 0o700, 0o1777, 0o2775, 0o6755, 0o644, 0o604, 0o070, 0,
    ];
    prop::sample::select(modes)
}

fn xattr_name() -> impl Strategy<Value = String> {
    let names = vec!["user.a", "user.b", "user.", "trusted.t", "other.x"];
    prop::sample::select(names).prop_map(String::from)
}

fn id() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(prop::sample::select(vec![0, 1000, 1001, 2000]))
}

fn naming() -> impl Strategy<Value = Op> {
    let kinds = vec![
        0o010000, 0o140000, 0o020000, 0o060000, 0o100000, 0, 0o040000, 0o120000,
    ];
    let flags = prop::sample::select(vec![0, 0, 0, 1, 2, 2, 4, 3, 5, 6, 8]);
    prop_oneof![
        4 => (path(), mode(), any::<bool>())
            .prop_map(|(path, mode, exclusive)| Op::Create { path, mode, exclusive }),
        5 => (path(), mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        1 => (path(), mode(), prop::sample::select(kinds), 0..2u64).prop_map(
            |(path, mode, kind, rdev)| Op::Mknod { path, mode: mode | kind, rdev: rdev * 0x103 }
        ),
        3 => (path(), path()).prop_map(|(target, path)| Op::Symlink { target, path }),
        3 => (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
        3 => path().prop_map(|path| Op::Unlink { path }),
        2 => path().prop_map(|path| Op::Rmdir { path }),
        6 => (path(), path(), flags)
            .prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
    ]
}

fn attributes() -> impl Strategy<Value = Op> {
    let times = prop::option::of((0..5i64, 0..5i64).prop_map(|(a, m)| (a * 1_000_000_007, m)));
    prop_oneof![
        2 => (path(), mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        2 => (path(), id(), id(), any::<bool>())
            .prop_map(|(path, uid, gid, follow)| Op::Chown { path, uid, gid, follow }),
        1 => (path(), times).prop_map(|(path, times)| Op::Utimens { path, times }),
        1 => (path(), 0..8u32).prop_map(|(path, mask)| Op::Access { path, mask }),
        4 => (path(), any::<bool>()).prop_map(|(path, follow)| Op::Stat { path, follow }),
        1 => path().prop_map(|path| Op::Readlink { path }),
        1 => (path(), xattr_name(), prop::collection::vec(any::<u8>(), 0..200), 0..4u32)
            .prop_map(|(path, name, value, flags)| Op::SetXattr { path, name, value, flags }),
        1 => (path(), xattr_name()).prop_map(|(path, name)| Op::GetXattr { path, name }),
        1 => (path(), xattr_name()).prop_map(|(path, name)| Op::RemoveXattr { path, name }),
        3 => path().prop_map(|path| Op::List { path }),
    ]
}

/// Any operation.
pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![3 => naming(), 2 => attributes()]
}

/// Any caller, mostly the privileged one.
pub(crate) fn caller() -> impl Strategy<Value = User> {
    prop_oneof![2 => Just(USERS[0]), 1 => Just(USERS[1]), 1 => Just(USERS[2])]
}
