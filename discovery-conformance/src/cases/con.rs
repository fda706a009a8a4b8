//! con
use crate::case::cases;
cases! {}
