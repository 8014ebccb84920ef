//! DAOS error numbers: names, values, texts, and the way to and from Linux error numbers.

use core::fmt;

macro_rules! der_table {
    ($($variant:ident $name:literal = $value:literal, $text:literal;)*) => {
        /// An error of DAOS; printed as `DER_NONEXIST(-1005): The specified entity does not exist`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Der {
            $(#[doc = $text] $variant,)*
        }

        impl Der {
            /// Every error of the table.
            pub const ALL: &[Der] = &[$(Der::$variant,)*];

            /// The negative number.
            pub const fn code(self) -> i32 {
                match self { $(Der::$variant => $value,)* }
            }

            /// The symbolic name, for example `DER_NONEXIST`.
            pub const fn name(self) -> &'static str {
                match self { $(Der::$variant => $name,)* }
            }

            /// The text that explains it.
            pub const fn text(self) -> &'static str {
                match self { $(Der::$variant => $text,)* }
            }
        }
    };
}

der_table! {
    NoPerm "DER_NO_PERM" = -1001, "Operation not permitted";
    NoHdl "DER_NO_HDL" = -1002, "Invalid handle";
    Inval "DER_INVAL" = -1003, "Invalid parameters";
    Exist "DER_EXIST" = -1004, "Entity already exists";
    NonExist "DER_NONEXIST" = -1005, "The specified entity does not exist";
    Unreach "DER_UNREACH" = -1006, "Unreachable node";
    NoSpace "DER_NOSPACE" = -1007, "No space on storage target";
    Already "DER_ALREADY" = -1008, "Operation already performed";
    NoMem "DER_NOMEM" = -1009, "Out of memory";
    NoSys "DER_NOSYS" = -1010, "Function not implemented";
    TimedOut "DER_TIMEDOUT" = -1011, "Time out";
    Busy "DER_BUSY" = -1012, "Device or resource busy";
    Again "DER_AGAIN" = -1013, "Try again";
    Overflow "DER_OVERFLOW" = -1017, "Data too long for defined data type or buffer size";
    Oog "DER_OOG" = -1019, "Out of group or member list";
    Hg "DER_HG" = -1020, "Transport layer mercury error";
    Misc "DER_MISC" = -1025, "Miscellaneous error";
    BadPath "DER_BADPATH" = -1026, "Bad path name";
    NotDir "DER_NOTDIR" = -1027, "Not a directory";
    Mismatch "DER_MISMATCH" = -1031, "Entity mismatch";
    Excluded "DER_EXCLUDED" = -1032, "Rank has been excluded";
    Io "DER_IO" = -2001, "I/O error";
    Stale "DER_STALE" = -2007, "Stale pool map version";
    Csum "DER_CSUM" = -2021, "Checksum error";
    DfInval "DER_DF_INVAL" = -2022, "Unsupported durable format";
    DfIncompt "DER_DF_INCOMPT" = -2023, "Incompatible durable format version";
    TxRestart "DER_TX_RESTART" = -2025, "Transaction should restart";
    DataLoss "DER_DATA_LOSS" = -2026, "Data lost or not recoverable";
    OpCanceled "DER_OP_CANCELED" = -2027, "Operation canceled";
    Rf "DER_RF" = -2031, "Failures exceed RF";
    AgentComm "DER_AGENT_COMM" = -2034, "Agent communication error";
    NotSupported "DER_NOTSUPPORTED" = -2037, "Operation not supported";
    NvmeIo "DER_NVME_IO" = -2042, "NVMe I/O error";
}

impl Der {
    /// The error of a negative number.
    pub fn from_code(code: i32) -> Option<Der> {
        Der::ALL.iter().copied().find(|der| der.code() == code)
    }

    /// The Linux error number a program sees; whatever has no counterpart is `EIO`.
    pub const fn errno(self) -> i32 {
        match self {
            Der::NoPerm => 1,
            Der::NonExist => 2,
            Der::Inval | Der::NoHdl => 22,
            Der::Exist => 17,
            Der::Unreach => 113,
            Der::NoSpace => 28,
            Der::NoMem => 12,
            Der::NoSys => 38,
            Der::TimedOut => 110,
            Der::Busy => 16,
            Der::Again => 11,
            Der::Overflow => 75,
            Der::BadPath | Der::NotDir => 20,
            Der::Stale => 116,
            Der::TxRestart => 85,
            Der::NotSupported => 95,
            Der::OpCanceled => 125,
            Der::Already
            | Der::Oog
            | Der::Hg
            | Der::Misc
            | Der::Mismatch
            | Der::Excluded
            | Der::Io
            | Der::Csum
            | Der::DfInval
            | Der::DfIncompt
            | Der::DataLoss
            | Der::Rf
            | Der::AgentComm
            | Der::NvmeIo => 5,
        }
    }

    /// The DAOS error for a Linux error number; what has no counterpart is `DER_MISC`.
    pub const fn from_errno(errno: i32) -> Der {
        match errno {
            1 | 13 => Der::NoPerm,
            2 => Der::NonExist,
            5 => Der::Io,
            11 => Der::Again,
            12 => Der::NoMem,
            16 => Der::Busy,
            17 => Der::Exist,
            20 => Der::NotDir,
            22 => Der::Inval,
            28 | 122 => Der::NoSpace,
            38 => Der::NoSys,
            75 => Der::Overflow,
            95 => Der::NotSupported,
            110 => Der::TimedOut,
            113 => Der::Unreach,
            116 => Der::Stale,
            125 => Der::OpCanceled,
            _ => Der::Misc,
        }
    }
}

impl fmt::Display for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.name(), self.code(), self.text())
    }
}

impl core::error::Error for Der {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_like_daos() {
        assert_eq!(
            Der::NonExist.to_string(),
            "DER_NONEXIST(-1005): The specified entity does not exist"
        );
        assert_eq!(
            Der::Busy.to_string(),
            "DER_BUSY(-1012): Device or resource busy"
        );
        assert_eq!(
            Der::Inval.to_string(),
            "DER_INVAL(-1003): Invalid parameters"
        );
    }

    #[test]
    fn numbers_are_distinct_and_found_again() {
        for der in Der::ALL {
            assert_eq!(Der::from_code(der.code()), Some(*der));
            assert!((1..4096).contains(&der.errno()));
        }
        assert_eq!(Der::from_code(-1), None);
        for errno in [
            1, 2, 5, 11, 12, 16, 17, 20, 22, 28, 38, 75, 95, 110, 113, 116, 125,
        ] {
            assert_eq!(Der::from_errno(errno).errno(), errno);
        }
        assert_eq!(Der::Csum.errno(), 5);
        assert_eq!(Der::from_errno(9999), Der::Misc);
    }
}
