//! Paths in `/proc/self` and `/dev` that name a descriptor, the working directory or the program.

use crate::kernel;

/// What a magic link names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Magic {
    /// A descriptor of this process.
    Fd(i32),
    /// The working directory.
    Cwd,
    /// The program.
    Exe,
}

/// Splits a path into a magic link of this process and what follows it.
pub(crate) fn magic_name(path: &[u8]) -> Option<(Magic, &[u8])> {
    if let Some(rest) = path.strip_prefix(b"/dev/") {
        for (fd, name) in [(0, b"stdin".as_slice()), (1, b"stdout"), (2, b"stderr")] {
            if let Some(rest) = rest.strip_prefix(name)
                && rest.first().is_none_or(|&b| b == b'/')
            {
                return Some((Magic::Fd(fd), rest));
            }
        }
        return fd_number(rest.strip_prefix(b"fd/")?);
    }
    let rest = path.strip_prefix(b"/proc/")?;
    let rest = if let Some(rest) = rest.strip_prefix(b"self/") {
        rest
    } else if let Some(rest) = rest.strip_prefix(b"thread-self/") {
        rest
    } else {
        let (pid, rest) = number_prefix(rest)?;
        if pid != kernel::getpid() {
            return None;
        }
        rest.strip_prefix(b"/")?
    };
    if let Some(rest) = rest.strip_prefix(b"fd/") {
        return fd_number(rest);
    }
    for (what, name) in [(Magic::Cwd, b"cwd"), (Magic::Exe, b"exe")] {
        if let Some(rest) = rest.strip_prefix(name)
            && rest.first().is_none_or(|&b| b == b'/')
        {
            return Some((what, rest));
        }
    }
    None
}

fn fd_number(path: &[u8]) -> Option<(Magic, &[u8])> {
    let (fd, rest) = number_prefix(path)?;
    rest.first()
        .is_none_or(|&b| b == b'/')
        .then_some((Magic::Fd(fd), rest))
}

fn number_prefix(path: &[u8]) -> Option<(i32, &[u8])> {
    let len = path.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 || len > 9 {
        return None;
    }
    let (digits, rest) = path.split_at(len);
    let number = digits
        .iter()
        .fold(0i32, |n, &b| n * 10 + i32::from(b - b'0'));
    Some((number, rest))
}
