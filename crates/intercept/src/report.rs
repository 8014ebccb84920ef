//! What start-up did, for the program's report.

use crate::modules::Module;
use core::ffi::CStr;
use sys::Errno;

/// What [`crate::start`] did with one loaded object.
#[derive(Clone, Copy, Debug)]
pub struct ModuleReport {
    /// Path of the object as the dynamic linker knows it.
    pub path: &'static CStr,
    /// How its text was replaced, or why it was not.
    pub result: Result<crate::Source, Errno>,
    /// Rewritten instructions.
    pub sites: usize,
    /// Instructions of interest that could not be rewritten; calls from there escape.
    pub refused: usize,
}

/// What [`crate::start`] did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    modules: [Option<ModuleReport>; crate::install::MODULES_MAX],
    dispatch: Option<Result<(), Errno>>,
}

impl Report {
    /// The objects that were looked at.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleReport> {
        self.modules.iter().flatten()
    }

    /// Was libc rewritten without leaving anything out?
    pub fn is_complete(&self) -> bool {
        self.modules().count() > 0
            && self
                .modules()
                .all(|module| module.result.is_ok() && module.refused == 0)
    }

    /// Syscall User Dispatch: `None` if it was not wanted or the kernel lacks it.
    pub fn user_dispatch(&self) -> Option<Result<(), Errno>> {
        self.dispatch
    }

    pub(crate) fn set_dispatch(&mut self, result: Result<(), Errno>) {
        self.dispatch = Some(result);
    }

    pub(crate) fn add(
        &mut self,
        module: &Module,
        source: crate::Source,
        sites: usize,
        refused: usize,
    ) {
        self.put(ModuleReport {
            path: module.path,
            result: Ok(source),
            sites,
            refused,
        });
    }

    pub(crate) fn fail(&mut self, module: &Module, errno: Errno) {
        self.put(ModuleReport {
            path: module.path,
            result: Err(errno),
            sites: 0,
            refused: 0,
        });
    }

    fn put(&mut self, report: ModuleReport) {
        if let Some(free) = self.modules.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(report);
        }
    }
}
