//! Arguments, environment and auxiliary vector as the kernel laid them out.

use core::ffi::{CStr, c_char};

/// What glibc passes to the functions of `.init_array`.
#[derive(Clone, Copy, Debug)]
pub struct Startup {
    argc: usize,
    argv: *const *const c_char,
    envp: *const *const c_char,
}

impl Startup {
    /// Wraps the three arguments of an `.init_array` function.
    ///
    /// # Safety
    /// They must be those, and argv and envp must be NULL-terminated lists that outlive the value.
    pub unsafe fn new(argc: i32, argv: *const *const c_char, envp: *const *const c_char) -> Self {
        Startup {
            argc: usize::try_from(argc).unwrap_or(0),
            argv,
            envp,
        }
    }

    /// The value of environment variable `name`, which holds no `=`.
    pub fn get(&self, name: &[u8]) -> Option<&'static CStr> {
        self.variables().find_map(|line| {
            let rest = line
                .to_bytes_with_nul()
                .strip_prefix(name)?
                .strip_prefix(b"=")?;
            CStr::from_bytes_with_nul(rest).ok()
        })
    }

    /// All environment entries, `NAME=value`.
    pub fn variables(&self) -> impl Iterator<Item = &'static CStr> + use<> {
        list(self.envp)
    }

    /// The program's arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &'static CStr> + use<> {
        list(self.argv).take(self.argc)
    }
}

fn list(mut at: *const *const c_char) -> impl Iterator<Item = &'static CStr> {
    core::iter::from_fn(move || {
        if at.is_null() {
            return None;
        }
        // SAFETY: `Startup::new` promises a NULL-terminated list of terminated strings.
        unsafe {
            let entry = *at;
            if entry.is_null() {
                return None;
            }
            at = at.add(1);
            Some(CStr::from_ptr(entry))
        }
    })
}
