//! Identifiers, object classes, properties and error numbers of DAOS.
