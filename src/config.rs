//! What the environment asks for: `D_IL_*` as in DAOS, `DAOS_POOL`/`DAOS_CONT` as the short form.
//!
//! Read once from the initial environment block; the slices point into it and live as long as the
//! process.

use crate::abi::PATH_MAX;

/// Longest mount path accepted, without NUL.
pub(crate) const MOUNT_PATH_MAX: usize = 1024;

/// A variable of the initial environment; bytes without NUL.
pub(crate) type Value = &'static [u8];

/// The variables this library reads, as found.
#[derive(Clone, Copy, Default)]
pub(crate) struct Environment {
    pub(crate) mount_point: Option<Value>,
    pub(crate) pool: Option<Value>,
    pub(crate) container: Option<Value>,
    pub(crate) report: Option<Value>,
    pub(crate) bypass_list: Option<Value>,
    pub(crate) daos_pool: Option<Value>,
    pub(crate) daos_cont: Option<Value>,
    pub(crate) io_uring: Option<Value>,
    pub(crate) mode: Option<Value>,
    pub(crate) root: Option<Value>,
    pub(crate) preload: Option<Value>,
    pub(crate) exe: Option<Value>,
    pub(crate) libraries: Option<Value>,
    pub(crate) left: Option<Value>,
}

impl Environment {
    /// Takes `NAME=value` if it is one of ours.
    pub(crate) fn take(&mut self, entry: Value) {
        let Some(at) = entry.iter().position(|&b| b == b'=') else {
            return;
        };
        let (name, value) = entry.split_at(at);
        let value = value.get(1..).unwrap_or(&[]);
        let slot = match name {
            b"D_IL_MOUNT_POINT" => &mut self.mount_point,
            b"D_IL_POOL" => &mut self.pool,
            b"D_IL_CONTAINER" => &mut self.container,
            b"D_IL_REPORT" => &mut self.report,
            b"D_IL_BYPASS_LIST" => &mut self.bypass_list,
            b"D_IL_IO_URING" => &mut self.io_uring,
            b"D_IL_MODE" => &mut self.mode,
            b"DAOS_POOL" => &mut self.daos_pool,
            b"DAOS_CONT" => &mut self.daos_cont,
            b"DAOS_EMBEDDED_ROOT" => &mut self.root,
            b"LD_PRELOAD" => &mut self.preload,
            b"D_IL_LIBRARIES" => &mut self.libraries,
            b"D_IL_EXE" => &mut self.exe,
            b"D_IL_LEFT" => &mut self.left,
            _ => return,
        };
        *slot = Some(value);
    }
}

/// Where the mount path came from; decides what a kernel directory there means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `D_IL_MOUNT_POINT`: covers whatever the kernel has there.
    Explicit,
    /// `DAOS_POOL` and `DAOS_CONT`: gives way to a non-empty kernel directory.
    Implied,
}

/// A mount as the environment describes it.
pub(crate) struct Wanted {
    pub(crate) path: [u8; MOUNT_PATH_MAX],
    pub(crate) path_len: usize,
    pub(crate) pool: Value,
    pub(crate) container: Value,
    pub(crate) origin: Origin,
}

/// Why the configuration cannot be used: text for one line, with the cure.
pub(crate) type Complaint = &'static str;

fn set(value: Option<Value>) -> Option<Value> {
    value.filter(|v| !v.is_empty())
}

/// The mount the environment asks for; `None` when it asks for none.
pub(crate) fn wanted(env: &Environment) -> Result<Option<Wanted>, Complaint> {
    let (pool, container) = (set(env.pool), set(env.container));
    if let Some(path) = env.mount_point {
        let pool = pool.or(set(env.daos_pool)).ok_or(
            "D_IL_MOUNT_POINT is set but D_IL_POOL is not; set D_IL_POOL to a pool label or UUID",
        )?;
        let container = container.or(set(env.daos_cont)).ok_or(
            "D_IL_MOUNT_POINT is set but D_IL_CONTAINER is not; set it to a container label or UUID",
        )?;
        return normal(path, pool, container, Origin::Explicit).map(Some);
    }
    if pool.is_some() || container.is_some() {
        return Err(
            "D_IL_POOL/D_IL_CONTAINER are set but D_IL_MOUNT_POINT is not; set it to an absolute path",
        );
    }
    let (Some(pool), Some(container)) = (set(env.daos_pool), set(env.daos_cont)) else {
        return Ok(None);
    };
    if pool.contains(&b'/') || container.contains(&b'/') {
        return Err("DAOS_POOL and DAOS_CONT must be labels or UUIDs, without '/'");
    }
    let mut path = [0u8; PATH_MAX];
    let mut len = 0;
    for part in [b"/tmp/".as_slice(), pool, b"/", container] {
        let slot = path
            .get_mut(len..len + part.len())
            .ok_or("DAOS_POOL or DAOS_CONT is too long")?;
        slot.copy_from_slice(part);
        len += part.len();
    }
    normal(
        path.get(..len).unwrap_or(&[]),
        pool,
        container,
        Origin::Implied,
    )
    .map(Some)
}

/// Checks a mount path and squeezes repeated and trailing slashes.
fn normal(path: &[u8], pool: Value, container: Value, origin: Origin) -> Result<Wanted, Complaint> {
    if path.first() != Some(&b'/') {
        return Err("D_IL_MOUNT_POINT must be an absolute path; give it a leading '/'");
    }
    let mut out = [0u8; MOUNT_PATH_MAX];
    let mut len = 0;
    for part in path.split(|&b| b == b'/').filter(|p| !p.is_empty()) {
        if part == b"." || part == b".." {
            return Err(
                "D_IL_MOUNT_POINT must not contain '.' or '..'; give the plain absolute path",
            );
        }
        let slot = out
            .get_mut(len..len + 1 + part.len())
            .ok_or("D_IL_MOUNT_POINT is longer than 1024 bytes; choose a shorter path")?;
        if let Some((slash, rest)) = slot.split_first_mut() {
            *slash = b'/';
            rest.copy_from_slice(part);
        }
        len += 1 + part.len();
    }
    if len == 0 {
        return Err("D_IL_MOUNT_POINT must not be '/'; choose a directory of its own");
    }
    for system in [b"/proc".as_slice(), b"/sys", b"/dev"] {
        let inside = out.get(..len).and_then(|p| p.strip_prefix(system));
        if inside.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/')) {
            return Err(
                "D_IL_MOUNT_POINT must not lie in /proc, /sys or /dev; choose another path",
            );
        }
    }
    Ok(Wanted {
        path: out,
        path_len: len,
        pool,
        container,
        origin,
    })
}

/// `D_IL_REPORT`: anything but empty, `0` and `false` asks for the summary.
pub(crate) fn report_wanted(env: &Environment) -> bool {
    set(env.report).is_some_and(|v| v != b"0" && v != b"false")
}

/// Whether the program's base name is on `D_IL_BYPASS_LIST` (names separated by `:`).
pub(crate) fn bypassed(env: &Environment, argv0: &[u8]) -> bool {
    let name = argv0.rsplit(|&b| b == b'/').next().unwrap_or(argv0);
    set(env.bypass_list).is_some_and(|list| {
        list.split(|&b| b == b':')
            .any(|n| !n.is_empty() && n == name)
    })
}
